insert into directory (tenant_id) values ($1) on conflict (tenant_id) do nothing
