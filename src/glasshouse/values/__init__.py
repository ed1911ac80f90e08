"""Floor 1: what is said about a model, as frozen values. No model, no file, no screen."""
