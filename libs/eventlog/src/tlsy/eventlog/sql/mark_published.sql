-- Nobody waits for the disk: a mark that a crash of the server takes back has its row published again, and who
-- read it before drops it. What compares marks with a new log commits in a transaction of its own, and does wait.
with quick as materialized (select set_config('synchronous_commit', 'off', true))
update __service__.outbox as o
set published_at = now(), published_log = $4, published_partition = m.partition, published_offset = m."offset"
from unnest($1::uuid[], $2::date[], $3::uuid[], $5::integer[], $6::bigint[])
    as m (tenant_id, day, event_id, partition, "offset"), quick
where o.tenant_id = m.tenant_id and o.day = m.day and o.event_id = m.event_id and o.published_at is null
