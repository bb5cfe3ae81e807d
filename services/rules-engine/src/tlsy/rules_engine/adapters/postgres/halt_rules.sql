-- Those that were in force; $2 live versions, $3 when, $4 why.
update rules r
set halted_at = $3, halt_reason = $4, updated_at = $3, revision = r.revision + 1
from rule_versions v
where
    r.tenant_id = $1
    and r.enabled
    and r.halted_at is null
    and r.live_version = any($2::text[])
    and v.tenant_id = $1
    and v.version_id = r.live_version
returning
    r.rule_id, r.display_name, r.event_type, r.enabled, r.live_version, r.previous_version, v.document,
    r.created_at, r.updated_at, r.revision, r.halted_at, r.halt_reason
