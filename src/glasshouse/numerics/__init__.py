"""Floor 0: pure tensor functions. No model, no file, no randomness that the caller did not hand in."""
