-- Per incarnation and partition the offset below which every group that was seen since $2 has applied
-- everything. A group without a row has applied nothing there.
select w.incarnation, w.partition, min(w.next_offset) as next_offset
from tlsy.consumer_watermark as w
join tlsy.consumer_group as g using (topic, consumer_group)
where w.topic = $1 and g.seen_at >= $2
group by w.incarnation, w.partition
having count(*) = (select count(*) from tlsy.consumer_group where topic = $1 and seen_at >= $2)
