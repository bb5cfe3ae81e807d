-- $1 tenant, then one array per column, sorted by (time, key). Answers how many rows were new, and which when
-- some were not: a key alone does not say, because the same (source, id) at another time is another event.
with stored as (
    insert into events (
        tenant_id, ts, event_key, source, event_id, type, subject, site, severity, value, labels, data
    )
    select
        $1, timestamptz 'epoch' + e.time_us * interval '1 microsecond', e.event_key, e.source, e.event_id,
        e.type, e.subject, e.site, e.severity, e.value, e.labels::jsonb, e.data::jsonb
    from unnest(
        $2::bigint[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::smallint[],
        $10::double precision[], $11::text[], $12::text[]
    ) as e (time_us, event_key, source, event_id, type, subject, site, severity, value, labels, data)
    on conflict do nothing
    returning ts, event_key
)
select
    count(*) as stored,
    case when count(*) < cardinality($3::bytea[]) then array_agg(ts) end as stored_times,
    case when count(*) < cardinality($3::bytea[]) then array_agg(event_key) end as stored_keys
from stored
