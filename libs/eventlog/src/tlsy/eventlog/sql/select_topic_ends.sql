select partition, acknowledged_offset from tlsy.topic_end where topic = $1 and incarnation = $2
