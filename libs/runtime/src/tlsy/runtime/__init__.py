"""What a process is made of: life cycle, host, settings, logging, telemetry, clock and ids."""
