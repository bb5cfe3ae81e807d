insert into directory (tenant_id, first_admin_log_in_time) values ($1, $2)
on conflict (tenant_id) do update
set first_admin_log_in_time = excluded.first_admin_log_in_time
where directory.first_admin_log_in_time is null
