insert into tlsy.topic_log (topic, incarnation, cluster_id) values ($1, 1, $2) on conflict do nothing
