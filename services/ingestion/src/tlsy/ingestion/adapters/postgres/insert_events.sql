-- $1 tenant, then a column each, of rows sorted by (time, key): arrays, and texts that $13 separates, because to
-- encode an array of texts costs its client more than all else here. A single row's empty text is an empty array.
-- Answers how many rows were new, and which when some were not: a key alone does not say, because the same
-- (source, id) at another time is another event.
with stored as (
    insert into events (
        tenant_id, ts, event_key, source, event_id, type, subject, site, severity, value, labels, data
    )
    select
        $1, timestamptz 'epoch' + e.time_us * interval '1 microsecond', e.event_key, e.source, e.event_id,
        e.type, coalesce(e.subject, ''), coalesce(e.site, ''), e.severity, e.value, e.labels::jsonb,
        e.data::jsonb
    from unnest(
        $2::bigint[], $3::bytea[], string_to_array($4, $13), string_to_array($5, $13),
        string_to_array($6, $13), string_to_array($7, $13), string_to_array($8, $13), $9::smallint[],
        $10::double precision[], string_to_array($11, $13), string_to_array($12, $13, '')
    ) as e (time_us, event_key, source, event_id, type, subject, site, severity, value, labels, data)
    on conflict do nothing
    returning ts, event_key
)
select
    count(*) as stored,
    case when count(*) < cardinality($3) then array_agg(ts) end as stored_times,
    case when count(*) < cardinality($3) then array_agg(event_key) end as stored_keys
from stored
