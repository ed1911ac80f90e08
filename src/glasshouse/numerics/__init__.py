"""Floor 0: pure tensor functions. No model, no file, no randomness but from a seed or generator of the caller."""
