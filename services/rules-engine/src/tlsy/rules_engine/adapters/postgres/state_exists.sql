select exists (select from rule_state where tenant_id = $1)
