with changed as (
    update operations set steps = $3::text::jsonb, attempts = $4, outcome = $5, reason = $6, message = $7,
        due_at = $8, updated_at = $9
    where tenant_id = $1 and operation_id = $2 and outcome = 'RUNNING'
    returning operation_id
)
select pg_notify('tlsy_operation_ended', operation_id::text) from changed where $5 <> 'RUNNING'
