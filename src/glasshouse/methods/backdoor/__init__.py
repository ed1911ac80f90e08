"""Was a backdoor planted in the projector, where does it live, how does it fire, and can it be cut out?"""

ORDER = ("detect", "recovery", "spectrum", "drift", "norm_law", "neurons", "purify", "implant")
"""In which the questions are listed and asked: is it there, where is it, how does it fire, how to be rid of it."""
