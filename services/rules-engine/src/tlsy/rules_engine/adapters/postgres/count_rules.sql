select count(*) from rules where tenant_id = $1
