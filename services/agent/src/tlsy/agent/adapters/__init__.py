"""The host, the network and the disk, as the agent sees them."""
