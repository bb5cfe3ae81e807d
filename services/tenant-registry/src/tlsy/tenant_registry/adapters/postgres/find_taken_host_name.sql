select host_name from host_names
where tenant_id <> $1 and host_name = any ($2::text[])
order by host_name
limit 1
