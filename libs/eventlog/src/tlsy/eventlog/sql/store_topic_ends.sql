insert into tlsy.topic_end as e (topic, incarnation, partition, acknowledged_offset)
select $1, $2, a.partition, a."offset" from unnest($3::integer[], $4::bigint[]) as a (partition, "offset")
-- Databases are swept side by side: in opposite orders they would wait for each other.
order by a.partition
on conflict (topic, partition) do update
set incarnation = excluded.incarnation,
    acknowledged_offset = case
        when e.incarnation = excluded.incarnation then greatest(e.acknowledged_offset, excluded.acknowledged_offset)
        else excluded.acknowledged_offset
    end
where e.incarnation <= excluded.incarnation
