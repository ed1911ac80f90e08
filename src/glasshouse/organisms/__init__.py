"""Floor 4: small real models with known truth."""
