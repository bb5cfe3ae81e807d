update users
set failures = 0, failures_since = null, locked_until = null, lockouts = 0,
    last_log_in_time = greatest(last_log_in_time, $3), password_hash = coalesce($4, password_hash)
where tenant_id = $1 and user_id = $2
