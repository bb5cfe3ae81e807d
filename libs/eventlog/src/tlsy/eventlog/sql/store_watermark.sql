-- Only in the topic's present incarnation: in one that ended there may be a gap below.
insert into tlsy.consumer_watermark as w (topic, consumer_group, partition, incarnation, next_offset)
select $1, $2, $3, log.incarnation, $5::bigint
from tlsy.topic_log as log where log.topic = $1 and log.incarnation = $4
on conflict (topic, consumer_group, incarnation, partition) do update
set next_offset = greatest(w.next_offset, excluded.next_offset), updated_at = now()
