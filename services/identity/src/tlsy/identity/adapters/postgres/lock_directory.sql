select first_admin_log_in_time, bootstrap_time from directory where tenant_id = $1 for update
