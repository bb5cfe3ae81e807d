select cluster_id from tlsy.topic_log where topic = $1 and incarnation = $2
