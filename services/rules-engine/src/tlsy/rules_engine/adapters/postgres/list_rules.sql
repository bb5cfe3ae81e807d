select
    r.rule_id, r.display_name, r.event_type, r.enabled, r.live_version, r.previous_version, v.document,
    r.created_at, r.updated_at, r.revision, r.halted_at, r.halt_reason
from rules r
join rule_versions v on v.tenant_id = r.tenant_id and v.version_id = r.live_version
where r.tenant_id = $1 and r.rule_id > $2
order by r.rule_id
limit $3
