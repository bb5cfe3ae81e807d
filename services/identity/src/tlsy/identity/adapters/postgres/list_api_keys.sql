select key_id, display_name, role, secret_hash, prefix, create_time, expire_time, revoke_time, last_used_time,
    last_issued_time
from api_keys
where tenant_id = $1 and key_id > $2
order by key_id
limit $3
