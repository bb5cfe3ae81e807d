-- $1 tenant, then per row: owner, hash of the key, key, payload (null: the row goes); $6 the stamp.
with changed as materialized (
    select owner, key_hash, key, payload
    from unnest($2::text[], $3::bytea[], $4::text[], $5::bytea[]) as c (owner, key_hash, key, payload)
), gone as (
    delete from rule_state s
    using changed c
    where s.tenant_id = $1 and s.owner = c.owner and s.key_hash = c.key_hash and c.payload is null
), kept as (
    insert into rule_state as s (tenant_id, owner, key_hash, key, payload)
    select $1, owner, key_hash, key, payload from changed where payload is not null
    on conflict (tenant_id, owner, key_hash) do update set payload = excluded.payload
)
update rule_set set stamp = $6, clears = 0 where tenant_id = $1
