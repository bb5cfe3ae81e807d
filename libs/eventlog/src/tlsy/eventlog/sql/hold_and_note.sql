-- $3 the assignment's epoch, $4 and $5 the days and ids of events. If the tenant's fence is of that epoch, holds it
-- and notes the events in the inbox: in one statement, because a transaction waits for each of its statements.
-- Answers whether it is, and the events that were not noted before.
with held as materialized (
    select from __service__.consumer_fence
    where tenant_id = $1 and consumer_group = $2 and epoch = $3
    for share
),
noted as (
    insert into __service__.inbox (tenant_id, consumer_group, day, event_id)
    select $1, $2, e.day, e.event_id
    from unnest($4::date[], $5::uuid[]) as e (day, event_id)
    where exists (select from held)
    on conflict do nothing
    returning event_id
)
select exists (select from held) as held, array(select event_id from noted) as first
