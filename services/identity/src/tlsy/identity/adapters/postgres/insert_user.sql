insert into users (
    tenant_id, user_id, email_lookup, email_sealed, display_name_sealed, locale, disabled, password_hash,
    failures, lockouts, create_time, version
) values ($1, $2, $3, $4, $5, $6, $7, $8, 0, 0, $9, $10)
on conflict (tenant_id, email_lookup) do nothing
returning user_id
