"""Floor 7: blocks made visible. Knows blocks and runs, not methods."""
