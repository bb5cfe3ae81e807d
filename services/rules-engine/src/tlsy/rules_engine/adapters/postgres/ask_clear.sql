update rule_set set clears = clears + 1 where tenant_id = $1
