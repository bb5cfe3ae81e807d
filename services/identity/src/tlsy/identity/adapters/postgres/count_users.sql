select count(*) from users where tenant_id = $1
