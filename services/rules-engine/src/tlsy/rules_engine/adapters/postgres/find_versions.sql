-- Two tell that the prefix $3 is ambiguous.
select rule_id, version_id, document, author, created_at
from rule_versions
where tenant_id = $1 and rule_id = $2 and starts_with(version_id, $3)
limit 2
