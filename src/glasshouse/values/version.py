"""Which glasshouse is this? The one place that says it; the package's metadata and every run's provenance read it."""

__version__ = "0.1.0"
