-- $1 tenant, then per dedup key: how often its rule fired, and when last, in µs.
update incidents i
set
    occurrences = i.occurrences + r.times,
    last_seen_at = greatest(i.last_seen_at, timestamptz 'epoch' + r.at_us * interval '1 microsecond')
from unnest($2::text[], $3::bigint[], $4::bigint[]) as r (dedup_key, times, at_us)
where i.tenant_id = $1 and i.dedup_key = r.dedup_key and i.state <> 'RESOLVED'
