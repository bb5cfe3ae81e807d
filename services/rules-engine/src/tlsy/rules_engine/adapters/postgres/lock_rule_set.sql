select version, stamp, clears from rule_set where tenant_id = $1 for update
