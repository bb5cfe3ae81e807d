"""RPCs: translation between protos and handlers."""
