"""The catalogue's RPCs."""
