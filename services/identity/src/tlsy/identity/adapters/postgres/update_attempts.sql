update users
set failures = $3, failures_since = $4, locked_until = $5, lockouts = $6
where tenant_id = $1 and user_id = $2
