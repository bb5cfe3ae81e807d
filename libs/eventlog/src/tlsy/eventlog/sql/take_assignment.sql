-- By default an epoch is the next number of all partitions. It is drawn while the row is held: one that was drawn
-- for the row to insert may be lower than that of another who inserted it meanwhile.
insert into tlsy.partition_assignment (topic, consumer_group, partition) values ($1, $2, $3)
on conflict (topic, consumer_group, partition) do update set epoch = default, assigned_at = now()
returning epoch
