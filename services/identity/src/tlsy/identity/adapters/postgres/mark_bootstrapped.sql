update directory set bootstrap_time = $2 where tenant_id = $1
