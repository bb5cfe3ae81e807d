-- All or nothing: no row when the group's parking would then hold more than $9 rows or $10 bytes.
insert into __service__.parked_record
    (tenant_id, consumer_group, topic, partition, record_offset, record_time, key, headers, value)
select $1, $2, r.topic, r.partition, r.record_offset, r.record_time, r.key, r.headers, r.value
from unnest($3::text[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::bytea[], $8::bytea[], $11::bytea[])
    with ordinality as r (topic, partition, record_offset, record_time, key, headers, value, position)
where (
    select count(*) + cardinality($3::text[]) <= $9 and coalesce(sum(octet_length(p.value)), 0) + $12 <= $10
    from __service__.parked_record as p where p.consumer_group = $2
)
order by r.position
