"""What identity knows: values and decisions. No await, no clock, no randomness, no I/O."""
