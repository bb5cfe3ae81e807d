update users
set display_name_sealed = $3, locale = $4, disabled = $5, password_hash = $6, failures = $7, failures_since = $8,
    locked_until = $9, lockouts = $10, version = $11
where tenant_id = $1 and user_id = $2
