update rule_set set version = version + 1 where tenant_id = $1 returning version
