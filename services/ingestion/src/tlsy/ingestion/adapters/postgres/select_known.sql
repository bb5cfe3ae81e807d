-- Which events, by time in µs ($1) and key ($2), are stored: their places in the arrays, from 0.
select (e.place - 1)::integer as place
from unnest($1::bigint[], $2::bytea[]) with ordinality as e (time_us, event_key, place)
inner join events as v
    on v.ts = timestamptz 'epoch' + e.time_us * interval '1 microsecond' and v.event_key = e.event_key
order by e.place
