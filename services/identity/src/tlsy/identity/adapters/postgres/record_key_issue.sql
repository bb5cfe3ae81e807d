update api_keys
set last_issued_time = greatest(last_issued_time, $3), last_used_time = coalesce($4, last_used_time)
where tenant_id = $1 and key_id = $2
