insert into host_names (tenant_id, host_name)
select $1, name from unnest($2::text[]) as name
order by name
on conflict do nothing
