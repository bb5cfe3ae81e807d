"""Between messages and commands: translates, decides nothing."""
