-- Settings with which sessions in this database begin, and that are only ever made for one transaction.
select
    case when s.setrole <> 0 then pg_get_userbyid(s.setrole)::text when s.setdatabase = 0 then 'all' else '' end as role,
    case s.setdatabase when 0 then '' else current_database()::text end as database,
    split_part(setting, '=', 1) as name
from pg_db_role_setting s, unnest(s.setconfig) as setting
where s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
    and lower(setting) like 'app.%'
union
-- And those with which this one has begun, whoever makes them: the server's files, too, of which nobody else tells.
select '', '', name from unnest(array['app.current_tenant', 'app.epoch', 'app.scope']) as name
where nullif(current_setting(name, true), '') is not null
order by 1, 2, 3
