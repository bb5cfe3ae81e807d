select body_hash, response from __service__.idempotency
where tenant_id = $1 and principal = $2 and method = $3 and request_id = $4
