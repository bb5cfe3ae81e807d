insert into api_keys (tenant_id, key_id, display_name, role, secret_hash, prefix, create_time, expire_time)
values ($1, $2, $3, $4, $5, $6, $7, $8)
