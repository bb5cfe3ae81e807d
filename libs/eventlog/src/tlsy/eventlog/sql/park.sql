-- All or nothing: false, and no row, when then the group would have more than $10 records or $11 bytes parked,
-- or the tenant more than $12 or $13. A record that is parked already is left as it is.
with given as (
    select * from unnest(
        $3::text[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::bytea[], $8::bytea[], $9::bytea[]
    ) with ordinality as r (topic, partition, record_offset, record_time, key, headers, value, position)
),
wanted as (
    select count(*) as records, sum(octet_length(value) + octet_length(headers) + coalesce(octet_length(key), 0)) as size
    from given
),
held as (
    select
        count(*) as records,
        coalesce(sum(p.size), 0) as size,
        count(*) filter (where p.tenant_id = $1) as own_records,
        coalesce(sum(p.size) filter (where p.tenant_id = $1), 0) as own_size
    from (
        select tenant_id, octet_length(value) + octet_length(headers) + coalesce(octet_length(key), 0) as size
        from __service__.parked_record where consumer_group = $2
    ) as p
),
room as (
    select
        held.records + wanted.records <= $10::bigint and held.size + wanted.size <= $11::bigint
        and held.own_records + wanted.records <= $12::bigint and held.own_size + wanted.size <= $13::bigint as fits
    from held, wanted
),
parked as (
    insert into __service__.parked_record
        (tenant_id, consumer_group, topic, partition, record_offset, record_time, key, headers, value)
    select $1, $2, g.topic, g.partition, g.record_offset, g.record_time, g.key, g.headers, g.value
    from given as g, room
    where room.fits
    order by g.position
    on conflict (tenant_id, consumer_group, topic, partition, record_offset, record_time) do nothing
)
select fits from room
