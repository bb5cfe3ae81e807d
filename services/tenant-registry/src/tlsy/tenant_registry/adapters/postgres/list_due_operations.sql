-- One operation of a tenant at a time, the oldest first; a fence before anything newer.
select distinct on (target_id) __operation_columns__ from operations
where outcome = 'RUNNING' and due_at <= $1 and target_id <> all ($2::uuid[])
order by target_id, created_at, operation_id
limit $3
