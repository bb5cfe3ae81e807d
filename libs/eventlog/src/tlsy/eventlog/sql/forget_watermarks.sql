delete from tlsy.consumer_watermark where topic = $1 and updated_at < $2
