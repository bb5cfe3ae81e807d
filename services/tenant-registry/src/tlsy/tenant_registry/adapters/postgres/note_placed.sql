update tenants set placed = true where subject_id = $1
