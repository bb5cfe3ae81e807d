-- Those that another tenant has.
select name as host_name from unnest($2::text[]) as name
where not exists (select from host_names h where h.tenant_id = $1 and h.host_name = name)
order by name
