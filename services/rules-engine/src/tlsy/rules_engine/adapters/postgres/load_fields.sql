-- $2: a type, or empty for all.
select event_type, path, types, last_seen_at
from observed_fields
where tenant_id = $1 and ($2::text = '' or event_type = $2)
order by event_type, path
