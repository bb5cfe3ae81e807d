update tenants set residency = $2 where subject_id = $1
