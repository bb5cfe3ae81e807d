update incidents set clear_pending = false where tenant_id = $1 and clear_pending returning rule_id, dedup_key
