-- A rule that changes is in force again.
insert into rules (
    tenant_id, rule_id, display_name, event_type, enabled, live_version, previous_version, created_at,
    updated_at, revision
) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
on conflict (tenant_id, rule_id) do update set
    display_name = excluded.display_name,
    event_type = excluded.event_type,
    enabled = excluded.enabled,
    live_version = excluded.live_version,
    previous_version = excluded.previous_version,
    updated_at = excluded.updated_at,
    revision = excluded.revision,
    halted_at = null,
    halt_reason = ''
