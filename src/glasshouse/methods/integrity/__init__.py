"""Integrity: is it the model that its publisher says it is, and what was changed in it?"""

ORDER = ("changed", "diff")
