-- $1 tenant, $2 month, $3 shard, $4 minute, $5 principal, then accepted, duplicates, rejected, deferred, batches.
-- The month's count, and the exact account of what one principal sent in one minute.
with month as (
    insert into ingest_counts as c (tenant_id, month, shard, accepted)
    values ($1, $2, $3, $6)
    on conflict (tenant_id, month, shard) do update set accepted = c.accepted + excluded.accepted
)
insert into ingest_minutes as m (
    tenant_id, minute, principal, shard, batches, accepted, duplicates, rejected, deferred
) values ($1, $4, $5, $3, $10, $6, $7, $8, $9)
on conflict (tenant_id, minute, principal, shard) do update set
    batches = m.batches + excluded.batches,
    accepted = m.accepted + excluded.accepted,
    duplicates = m.duplicates + excluded.duplicates,
    rejected = m.rejected + excluded.rejected,
    deferred = m.deferred + excluded.deferred
