"""Floor 3: opening a model, finding one's way in it, reading, editing and patching it."""
