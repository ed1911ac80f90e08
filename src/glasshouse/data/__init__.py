"""Floor 2: what is shown to a model."""
