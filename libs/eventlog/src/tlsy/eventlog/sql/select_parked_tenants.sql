select distinct tenant_id from __service__.parked_record
where consumer_group = $1 and topic = $2 and partition = $3
