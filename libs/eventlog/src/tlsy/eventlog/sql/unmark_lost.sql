-- Rows of one day that were written to an earlier incarnation of the log than $2, at or behind the position
-- up to which every group had applied it ($3, $4, $5: log, partition, next offset; 0 where none is given).
update __service__.outbox as o
set published_at = null, published_log = null, published_partition = null, published_offset = null
from (
    select p.tenant_id, p.day, p.event_id
    from __service__.outbox as p
    left join unnest($3::integer[], $4::integer[], $5::bigint[]) as applied (log, partition, next_offset)
        on applied.log = p.published_log and applied.partition = p.published_partition
    where p.day = $1 and p.published_at is not null and p.published_log <> $2
        and p.published_offset >= coalesce(applied.next_offset, 0)
    limit $6
) as lost
where o.tenant_id = lost.tenant_id and o.day = lost.day and o.event_id = lost.event_id
