"""The application's half of authgate: it takes the identity that the gateway has verified."""

__version__ = "0.1.0"
