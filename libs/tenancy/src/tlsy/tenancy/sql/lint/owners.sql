-- What roles but the suite's owner and superusers own in this database, and the database itself; but for tables,
-- which tables.sql has, and for extensions of an administrator who is no superuser.
select r.rolname as owner, pg_describe_object(d.classid, d.objid, 0) as name
from pg_shdepend d join pg_roles r on r.oid = d.refobjid
where d.refclassid = 'pg_authid'::regclass and d.deptype = 'o'
    and r.rolname <> 'tlsy_owner'
    and (r.rolname like 'tlsy\_%' or not r.rolsuper and d.classid <> 'pg_extension'::regclass)
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
