"""A host that runs all services in one process on one machine."""
