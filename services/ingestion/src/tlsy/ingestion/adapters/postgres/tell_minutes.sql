-- Takes minutes before $1 that the audit log does not know wholly, $2 at most; another replica's are left alone.
with due as (
    select tenant_id, minute, principal, shard, told
    from ingest_minutes
    where batches > told and minute < $1
    order by minute
    limit $2
    for update skip locked
)
update ingest_minutes m set told = m.batches
from due
where (m.tenant_id, m.minute, m.principal, m.shard) = (due.tenant_id, due.minute, due.principal, due.shard)
returning m.minute, m.principal, m.batches - due.told as calls, m.accepted, m.duplicates, m.rejected, m.deferred
