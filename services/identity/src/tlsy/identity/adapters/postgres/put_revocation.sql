insert into revocations (tenant_id, principal, revoke_time, expire_time, cause)
values ($1, $2, $3, $4, $5)
on conflict (tenant_id, principal) do update
set revoke_time = excluded.revoke_time, expire_time = excluded.expire_time, cause = excluded.cause
where revocations.revoke_time < excluded.revoke_time
