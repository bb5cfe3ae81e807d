-- A group that has none of the topic's partitions begins with $3 of them; epoch 0 is before any assignment.
insert into tlsy.partition_assignment (topic, consumer_group, partition, epoch)
overriding system value
select $1, $2, number, 0 from generate_series(0, $3::integer - 1) as number
where not exists (select from tlsy.partition_assignment where topic = $1 and consumer_group = $2)
on conflict do nothing
