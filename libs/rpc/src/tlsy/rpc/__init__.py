"""gRPC server and channel builders, the interceptor, error model, paging, idempotency."""
