"""PEFT adapters: read, merged into their base, shown what comes with them, and drawn."""
