select count(*) from rule_versions where tenant_id = $1 and rule_id = $2
