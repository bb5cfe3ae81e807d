"""Generated protobuf and gRPC stubs of every TLS-Y service, and the event registry."""
