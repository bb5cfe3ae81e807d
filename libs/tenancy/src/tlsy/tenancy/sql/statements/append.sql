insert into __service__.outbox
    (tenant_id, day, event_id, key, type, source, epoch, occurred_at, traceparent, data, sweep_after,
    principal, correlation_id)
select e.tenant_id, e.day, e.event_id, e.key, e.type, e.source, e.epoch, e.occurred_at, e.traceparent, e.data,
    now() + make_interval(secs => e.sweep_after_s), $12, $13
from unnest(
    $1::uuid[], $2::date[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::timestamptz[],
    $9::text[], $10::bytea[], $11::float8[]
) with ordinality as e (
    tenant_id, day, event_id, key, type, source, epoch, occurred_at, traceparent, data, sweep_after_s, position
)
order by e.position
