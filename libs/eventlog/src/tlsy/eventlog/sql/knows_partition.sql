select exists (
    select from tlsy.consumer_watermark
    where topic = $1 and consumer_group = $2 and partition = $3 and ($4::integer is null or incarnation = $4)
)
