select incarnation, cluster_id from tlsy.topic_log where topic = $1
