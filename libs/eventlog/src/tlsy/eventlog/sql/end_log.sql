update tlsy.topic_log set incarnation = incarnation + 1, changed_at = now()
where topic = $1 and incarnation = coalesce($2, incarnation)
