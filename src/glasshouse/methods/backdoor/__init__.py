"""Was a backdoor planted in the projector, where is it, how does its trigger work, and can it be removed?"""

ORDER = ("detect", "recovery", "spectrum", "drift", "norm_law", "neurons", "purify", "implant")
"""Methods in the order in which they are listed and run: detection, location, mechanism, removal."""
