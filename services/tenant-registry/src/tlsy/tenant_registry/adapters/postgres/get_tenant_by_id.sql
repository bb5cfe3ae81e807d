select __tenant_columns__ from tenants where subject_id = $1 limit 1
