-- Deletes what the tenant no longer has and inserts what is new; answers one that another tenant has. As
-- "insert" says it, which waits for who is just taking it, and not as the statement's own snapshot would.
with gone as (
    delete from host_names where tenant_id = $1 and host_name <> all ($2::text[])
), added as (
    insert into host_names (tenant_id, host_name)
    select $1, name from unnest($2::text[]) as name
    order by name
    on conflict do nothing
    returning host_name
)
select name from unnest($2::text[]) as name
where name not in (select host_name from added)
    and not exists (select from host_names h where h.tenant_id = $1 and h.host_name = name)
order by name
limit 1
