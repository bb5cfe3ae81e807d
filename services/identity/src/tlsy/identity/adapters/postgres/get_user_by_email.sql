select user_id, email_sealed, display_name_sealed, locale, disabled, password_hash, failures, failures_since,
    locked_until, lockouts, create_time, last_log_in_time, version
from users
where tenant_id = $1 and email_lookup = $2
