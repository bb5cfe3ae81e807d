-- Newest first, before the place ($3, $4) of the last one seen.
select rule_id, version_id, document, author, created_at
from rule_versions
where tenant_id = $1 and rule_id = $2 and (created_at, version_id) < ($3, $4)
order by created_at desc, version_id desc
limit $5
