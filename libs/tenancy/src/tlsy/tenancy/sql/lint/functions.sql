-- What the functions of schema tlsy do, and how: what follows LANGUAGE where one is made, as our texts write it.
select p.proname as name, p.prosrc as body,
    concat_ws(' ', l.lanname,
        case p.provolatile when 's' then 'stable' when 'i' then 'immutable' end,
        case when p.proisstrict then 'strict' end,
        case when p.prosecdef then 'security definer' else 'security invoker' end,
        (
            select string_agg('set ' || lower(regexp_replace(setting, '=', ' = ')), ' ' order by position)
            from unnest(p.proconfig) with ordinality as s (setting, position)
        )
    ) as declared
from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
where n.nspname = 'tlsy'
order by 1
