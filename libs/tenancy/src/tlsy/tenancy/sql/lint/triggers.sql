-- What acts when somebody else does: rules, triggers, and triggers of the whole database but an extension's. None
-- is ours. A partition's copy of its table's trigger goes with that.
select 'rule' as kind, r.rulename as name, r.ev_class::regclass::text as table_name
from pg_rewrite r join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
where r.rulename <> '_RETURN' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
union all
select 'trigger', t.tgname, t.tgrelid::regclass::text
from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
where not t.tgisinternal and t.tgparentid = 0 and n.nspname !~ '^pg_'
union all
select 'event trigger', e.evtname, null
from pg_event_trigger e
where not exists (
    select from pg_depend d where d.classid = 'pg_event_trigger'::regclass and d.objid = e.oid and d.deptype = 'e'
)
order by 1, 3, 2
