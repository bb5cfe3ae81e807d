-- Takes minutes before $1 that the audit log does not know wholly, $2 at most; another replica's are left alone.
-- Answers what it does not know of them: more may be counted in a minute after it was told.
with due as (
    select
        tenant_id, minute, principal, shard, told, told_accepted, told_duplicates, told_rejected, told_deferred
    from ingest_minutes
    where batches > told and minute < $1
    order by minute
    limit $2
    for update skip locked
)
update ingest_minutes m set
    told = m.batches,
    told_accepted = m.accepted,
    told_duplicates = m.duplicates,
    told_rejected = m.rejected,
    told_deferred = m.deferred
from due
where (m.tenant_id, m.minute, m.principal, m.shard) = (due.tenant_id, due.minute, due.principal, due.shard)
returning
    m.minute,
    m.principal,
    m.batches - due.told as calls,
    m.accepted - due.told_accepted as accepted,
    m.duplicates - due.told_duplicates as duplicates,
    m.rejected - due.told_rejected as rejected,
    m.deferred - due.told_deferred as deferred
