"""The version of mongover; the packaging reads it here, too."""

__version__ = "0.1.0"
