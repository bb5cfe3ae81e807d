insert into __service__.idempotency as i (tenant_id, principal, method, request_id, body_hash, expires_at)
values ($1, $2, $3, $4, $5, $6)
on conflict (tenant_id, principal, method, request_id) do update
    set body_hash = excluded.body_hash, response = null, expires_at = excluded.expires_at
    where i.expires_at <= $7
returning true
