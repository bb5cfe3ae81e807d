-- $3 the assignment's epoch, $4 and $5 the days and ids of events. Holds the tenant's fence and, if it is of that
-- epoch, notes the events in the inbox: in one statement, because a transaction waits for each of its statements.
-- Answers the fence's epoch, null for none, and the events that were not noted before.
with held as materialized (
    select epoch from __service__.consumer_fence where tenant_id = $1 and consumer_group = $2 for share
),
noted as (
    insert into __service__.inbox (tenant_id, consumer_group, day, event_id)
    select $1, $2, e.day, e.event_id
    from unnest($4::date[], $5::uuid[]) as e (day, event_id)
    where (select epoch from held) = $3
    on conflict do nothing
    returning event_id
)
select (select epoch from held) as epoch, array(select event_id from noted) as first
