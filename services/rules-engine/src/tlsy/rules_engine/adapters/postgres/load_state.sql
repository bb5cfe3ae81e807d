select owner, key, payload from rule_state where tenant_id = $1
