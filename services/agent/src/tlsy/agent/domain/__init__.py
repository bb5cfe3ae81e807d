"""What the agent says of a host, and when. Pure."""
