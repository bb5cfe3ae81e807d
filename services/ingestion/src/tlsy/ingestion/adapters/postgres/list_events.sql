-- Newest first, of [$1, $2) and before the place ($3, $4) of the last one seen; $5: labels that all must be
-- equal, or null. Whose events: row-level security's business.
select ts, event_key, source, event_id, type, subject, site, severity, value, labels::text, data::text
from events
where
    ts >= $1
    and ts < $2
    and (ts, event_key) < ($3, $4)
    and ($5::jsonb is null or labels @> $5::jsonb)
order by ts desc, event_key desc
limit $6
