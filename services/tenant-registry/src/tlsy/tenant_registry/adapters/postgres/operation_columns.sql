tenant_id, operation_id, target_id, target_slug, verb, steps::text as steps, attempts, outcome, reason, message,
    created_at, due_at, principal, correlation_id, traceparent
