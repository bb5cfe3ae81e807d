insert into tlsy.partition_assignment as a (topic, consumer_group, partition, epoch) values ($1, $2, $3, 1)
on conflict (topic, consumer_group, partition) do update set epoch = a.epoch + 1, assigned_at = now()
returning epoch
