"""What a supervision event may be, and what becomes of a batch of them. Pure."""
