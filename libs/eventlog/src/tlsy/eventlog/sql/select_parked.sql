select seq, topic, partition, record_offset, record_time, key, headers, value
from __service__.parked_record
where tenant_id = $1 and consumer_group = $2 and topic = $3 and partition = $4
order by seq limit $5
