insert into tlsy.consumer_group (topic, consumer_group)
select topic, $2 from unnest($1::text[]) as topic
on conflict (topic, consumer_group) do update set seen_at = now()
