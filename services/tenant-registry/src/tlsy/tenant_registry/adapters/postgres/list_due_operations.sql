-- Those that move a fence first: see `Operation.moves_fence`.
select __operation_columns__ from (
    select distinct on (target_id) o.* from operations o
    where outcome = 'RUNNING' and due_at <= $2 and target_id <> all ($3::uuid[])
    order by target_id, due_at > $1, created_at, operation_id
) as first
order by due_at > $1, not (verb = 'fence' or verb = 'delete' and steps #>> '{0,1}' = 'false'), due_at, operation_id
limit $4
