select v.version_id, v.document
from rules r
join rule_versions v on v.tenant_id = r.tenant_id and v.version_id = r.live_version
where r.tenant_id = $1 and r.enabled and r.halted_at is null
order by r.rule_id
