"""Floor 6: one question, one file."""
