"""Floor 5: what turns a function into a method, a method into a run, and a run into a folder."""
