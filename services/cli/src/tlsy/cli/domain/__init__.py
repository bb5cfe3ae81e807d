"""What the command line knows without asking anybody: contexts, documents, times, names. Pure."""
