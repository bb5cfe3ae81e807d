-- At most $1 rows and, after the first, $2 bytes; $3: also those that their writer may still be sending.
select tenant_id, day, event_id, key, type, source, epoch, occurred_at, traceparent, data, principal, correlation_id
from (
    select head.*, sum(octet_length(data)) over (order by seq) - octet_length(data) as bytes_before
    from (
        select * from __service__.outbox
        where published_at is null and ($3 or sweep_after <= now())
        order by seq limit $1
    ) as head
) as sized
where bytes_before < $2
order by seq
