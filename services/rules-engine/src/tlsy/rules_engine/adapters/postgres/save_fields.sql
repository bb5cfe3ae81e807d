-- $1 tenant; $2: an array of fields, sorted by type and path.
insert into observed_fields as f (tenant_id, event_type, path, types, last_seen_at)
select $1, n.event_type, n.path, n.types, timestamptz 'epoch' + n.last_seen_us * interval '1 microsecond'
from jsonb_to_recordset($2::jsonb) as n (event_type text, path text, types text[], last_seen_us bigint)
on conflict (tenant_id, event_type, path) do update set
    types = excluded.types,
    last_seen_at = greatest(f.last_seen_at, excluded.last_seen_at)
