-- Of month $1: events stored so far, and when quota $2 was passed, if it was.
select
    coalesce(sum(accepted), 0)::bigint as accepted,
    (select passed_at from ingest_quota_passed where month = $1 and quota = $2) as passed_at
from ingest_counts
where month = $1
