insert into revocation_index (tenant_id, principal, revoke_time, expire_time)
values ($1, $2, $3, $4)
on conflict (tenant_id, principal) do update
set revoke_time = excluded.revoke_time, expire_time = excluded.expire_time
where revocation_index.revoke_time < excluded.revoke_time
