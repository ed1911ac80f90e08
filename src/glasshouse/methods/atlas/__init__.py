"""The survey's map: what is where, layer by layer."""
