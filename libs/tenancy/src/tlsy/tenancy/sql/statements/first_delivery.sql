insert into __service__.inbox (tenant_id, consumer_group, day, event_id)
values ($1, $2, $3, $4)
on conflict do nothing
returning true
