"""One handler per RPC, and what they share."""
