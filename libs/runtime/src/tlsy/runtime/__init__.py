"""Service life cycle, Host, settings, logging, telemetry, clock and ids."""
