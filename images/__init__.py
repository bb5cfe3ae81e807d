"""Builds the container images: `make images`. What they are is in docs/images.md."""
