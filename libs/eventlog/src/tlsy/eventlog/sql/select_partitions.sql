select partition from tlsy.partition_assignment where topic = $1 and consumer_group = $2 order by partition
