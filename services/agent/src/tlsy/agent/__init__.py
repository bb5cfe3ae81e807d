"""Collector a tenant runs on its hosts: this host's telemetry, probes, certificates."""
