insert into __service__.consumer_fence as f (tenant_id, consumer_group, epoch) values ($1, $2, $3)
on conflict (tenant_id, consumer_group) do update set epoch = excluded.epoch where f.epoch < excluded.epoch
