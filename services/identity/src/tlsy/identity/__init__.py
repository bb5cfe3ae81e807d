"""Users, roles, API keys, the embedded directory and tokens."""
