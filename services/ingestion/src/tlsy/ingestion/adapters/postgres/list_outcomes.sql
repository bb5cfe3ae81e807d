-- Newest first, before the place ($1, $2) of the last one seen.
select record_time, outcome_id, partition, record_offset, accepted, duplicates, rejected, rejections::text
from ingest_outcomes
where (record_time, outcome_id) < ($1, $2)
order by record_time desc, outcome_id desc
limit $3
