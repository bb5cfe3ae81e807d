-- In incarnation $4, or the present one.
select next_offset from tlsy.consumer_watermark
where topic = $1 and consumer_group = $2 and partition = $3
    and incarnation = coalesce($4::integer, (select incarnation from tlsy.topic_log where topic = $1))
