delete from users where tenant_id = $1 and user_id = $2
