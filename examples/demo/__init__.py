"""The demonstration: the whole suite on this machine, watching this machine, for tenants of every kind."""
