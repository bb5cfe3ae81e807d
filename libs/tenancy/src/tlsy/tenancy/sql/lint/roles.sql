-- Roles of the suite that row-level security does not hold, by attribute or by membership.
select r.rolname as role, r.rolsuper as is_superuser, r.rolbypassrls as bypasses,
    array(
        select pg_get_userbyid(m.roleid)::text from pg_auth_members m where m.member = r.oid order by 1
    ) as member_of
from pg_roles r
where r.rolname like 'tlsy\_%'
order by 1
