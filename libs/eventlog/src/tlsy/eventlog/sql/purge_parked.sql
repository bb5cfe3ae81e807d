delete from __service__.parked_record
where tenant_id = $1 and consumer_group = $2 and topic = $3 and partition = $4
