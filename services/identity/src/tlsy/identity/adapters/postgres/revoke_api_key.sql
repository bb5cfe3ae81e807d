update api_keys set revoke_time = $3 where tenant_id = $1 and key_id = $2
