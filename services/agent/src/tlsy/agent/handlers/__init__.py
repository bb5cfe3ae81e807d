"""What the agent does: collect, and deliver."""
