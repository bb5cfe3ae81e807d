-- What roles of the suite own in this database, and the database itself, but for tables, which tables.sql has.
select r.rolname as owner, pg_describe_object(d.classid, d.objid, 0) as name
from pg_shdepend d join pg_roles r on r.oid = d.refobjid
where d.refclassid = 'pg_authid'::regclass and d.deptype = 'o'
    and r.rolname like 'tlsy\_%' and r.rolname <> 'tlsy_owner'
    and case d.dbid
        when 0 then d.classid = 'pg_database'::regclass
            and d.objid = (select oid from pg_database where datname = current_database())
        else d.dbid = (select oid from pg_database where datname = current_database())
            and not exists (
                select from pg_class c
                where d.classid = 'pg_class'::regclass and c.oid = d.objid and c.relkind in ('r', 'p')
            )
    end
order by 2
