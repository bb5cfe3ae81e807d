with made as (
    insert into operations (
        tenant_id, operation_id, target_id, target_slug, verb, steps, attempts, outcome, reason, message,
        created_at, due_at, updated_at, principal, correlation_id, traceparent
    )
    values ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11, $12, $11, $13, $14, $15)
    returning operation_id
)
select pg_notify('tlsy_operation_due', operation_id::text) from made
