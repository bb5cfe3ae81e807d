select version_id, document from rule_versions where tenant_id = $1 and version_id = any($2::text[])
