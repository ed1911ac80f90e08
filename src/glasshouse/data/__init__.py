"""Floor 2: what is read from files and shown to a model, and how files of strangers are read safely."""
