insert into rule_versions (tenant_id, version_id, rule_id, document, author, created_at)
values ($1, $2, $3, $4, $5, $6)
on conflict do nothing
