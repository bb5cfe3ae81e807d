update __service__.idempotency set response = $5
where tenant_id = $1 and principal = $2 and method = $3 and request_id = $4
