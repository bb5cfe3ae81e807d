delete from host_names where tenant_id = $1 and host_name <> all ($2::text[])
