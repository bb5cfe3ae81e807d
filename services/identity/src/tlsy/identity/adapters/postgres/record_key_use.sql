update api_keys set last_used_time = $3 where tenant_id = $1 and key_id = $2
