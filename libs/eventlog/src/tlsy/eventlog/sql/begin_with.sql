-- A group that has none of the topic's partitions begins with $3 of them, at $4; epoch 0 is before any assignment.
with begun as (
    insert into tlsy.partition_assignment (topic, consumer_group, partition, epoch)
    overriding system value
    select $1, $2, number, 0 from unnest($3::integer[]) as number
    where not exists (select from tlsy.partition_assignment where topic = $1 and consumer_group = $2)
    -- Members begin at the same time: all in the same order.
    order by number
    on conflict do nothing
    returning partition
)
insert into tlsy.consumer_watermark (topic, consumer_group, partition, incarnation, next_offset)
select $1, $2, begun.partition, log.incarnation, broker.start
from begun
join unnest($3::integer[], $4::bigint[]) as broker (partition, start) using (partition)
join tlsy.topic_log as log on log.topic = $1
where broker.start > 0
on conflict do nothing
