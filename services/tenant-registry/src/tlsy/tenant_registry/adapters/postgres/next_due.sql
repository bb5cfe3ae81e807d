select min(due_at) from operations where outcome = 'RUNNING' and target_id <> all ($1::uuid[])
