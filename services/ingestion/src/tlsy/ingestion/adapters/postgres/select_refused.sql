-- Which events' labels ($1) or data ($2) are no JSON that can be stored: their places in the arrays, from 0.
select (e.place - 1)::integer as place
from unnest($1::text[], $2::text[]) with ordinality as e (labels, data, place)
where not pg_input_is_valid(e.labels, 'jsonb') or not pg_input_is_valid(e.data, 'jsonb')
order by e.place
