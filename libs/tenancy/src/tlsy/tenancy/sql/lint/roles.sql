-- Roles of the suite that row-level security does not hold, by attribute or by membership, and who else is a
-- member of one. An administrator who made a role may be allowed to grant it; that alone uses nothing of it.
select r.rolname as role, r.rolsuper as is_superuser, r.rolbypassrls as bypasses,
    array_remove(
        array[
            case when r.rolreplication then 'replication' end,
            case when r.rolcreaterole then 'createrole' end,
            case when r.rolcreatedb and r.rolname <> 'tlsy_migrator' then 'createdb' end,
            case when r.rolcanlogin and r.rolname = 'tlsy_owner' then 'login' end
        ], null) as beyond,
    array(
        select pg_get_userbyid(m.roleid)::text from pg_auth_members m where m.member = r.oid order by 1
    ) as member_of,
    array(
        select pg_get_userbyid(m.member)::text from pg_auth_members m
        where m.roleid = r.oid and (m.inherit_option or m.set_option)
            and pg_get_userbyid(m.member) not like 'tlsy\_%'
        order by 1
    ) as outsiders
from pg_roles r
where r.rolname like 'tlsy\_%'
order by 1
