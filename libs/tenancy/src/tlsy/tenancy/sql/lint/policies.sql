-- Policies with their expressions as PostgreSQL writes them, white space made one.
select p.polrelid::bigint as table_id, p.polname as name, p.polpermissive as permissive, p.polcmd::text as command,
    array(select case r when 0 then 'public' else pg_get_userbyid(r) end from unnest(p.polroles) r)::text[] as roles,
    coalesce(regexp_replace(pg_get_expr(p.polqual, p.polrelid), '\s+', ' ', 'g'), '') as using_text,
    coalesce(regexp_replace(pg_get_expr(p.polwithcheck, p.polrelid), '\s+', ' ', 'g'), '') as check_text
from pg_policy p
order by p.polrelid, p.polname
