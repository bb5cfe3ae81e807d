-- What anybody but the owner may do with this database, its tables, columns, schemas, foreign servers and the
-- functions of schema tlsy, and will be able to do with what is made later; of PostgreSQL's own, what was granted
-- to the suite's roles, and of its settings to everybody.
with entries as (
    select 'table' as kind, n.nspname as schema_name, c.relname as name, c.relkind in ('r', 'p') as is_table,
        c.relispartition as is_partition, c.relowner as owner, a.grantee, lower(a.privilege_type) as privilege,
        a.is_grantable
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a
    where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    union all
    select 'column', n.nspname, c.relname, c.relkind in ('r', 'p'), c.relispartition, c.relowner, a.grantee,
        lower(a.privilege_type) || '(' || t.attname || ')', a.is_grantable
    from pg_attribute t join pg_class c on c.oid = t.attrelid join pg_namespace n on n.oid = c.relnamespace,
        aclexplode(t.attacl) a
    union all
    select 'schema', n.nspname, n.nspname, false, false, n.nspowner, a.grantee, lower(a.privilege_type),
        a.is_grantable
    from pg_namespace n, aclexplode(n.nspacl) a
    union all
    select 'function', n.nspname, p.proname, false, false, p.proowner, a.grantee, lower(a.privilege_type),
        a.is_grantable
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace,
        aclexplode(case n.nspname when 'tlsy' then coalesce(p.proacl, acldefault('f', p.proowner)) else p.proacl end) a
    where n.nspname = 'tlsy' or pg_get_userbyid(a.grantee) like 'tlsy\_%'
    union all
    select 'database', '', d.datname, false, false, d.datdba, a.grantee, lower(a.privilege_type),
        a.is_grantable
    from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
    where d.datname = current_database()
    union all
    select 'parameter', '', p.parname, false, false, 10, a.grantee, lower(a.privilege_type), a.is_grantable
    from pg_parameter_acl p, aclexplode(p.paracl) a
    where a.grantee = 0 or pg_get_userbyid(a.grantee) like 'tlsy\_%'
    union all
    select 'foreign server', '', s.srvname, false, false, s.srvowner, a.grantee, lower(a.privilege_type),
        a.is_grantable
    from pg_foreign_server s, aclexplode(s.srvacl) a
    union all
    select 'foreign data wrapper', '', w.fdwname, false, false, w.fdwowner, a.grantee, lower(a.privilege_type),
        a.is_grantable
    from pg_foreign_data_wrapper w, aclexplode(w.fdwacl) a
    union all
    select 'default', coalesce(n.nspname, ''), d.defaclrole::regrole::text, false, false, d.defaclrole, a.grantee,
        lower(a.privilege_type), a.is_grantable
    from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a
)
select kind, schema_name, name, is_table, is_partition, privilege, is_grantable,
    case grantee when 0 then 'public' else pg_get_userbyid(grantee) end as grantee
from entries
where grantee <> owner
    and (
        schema_name !~ '^pg_' and schema_name <> 'information_schema'
        or grantee in (select oid from pg_roles where rolname like 'tlsy\_%')
    )
    -- PostgreSQL's own: everybody may look into schema public, and nobody but its owner make anything there.
    and (kind, schema_name, privilege) <> ('schema', 'public', 'usage')
order by 1, 2, 3, 6, 5
