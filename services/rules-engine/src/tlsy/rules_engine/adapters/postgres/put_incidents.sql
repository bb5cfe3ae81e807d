-- $2: an array of incidents, in the order in which they changed: one of a dedup key is resolved before the next
-- one is opened.
insert into incidents (
    tenant_id, incident_id, rule_id, version_id, dedup_key, state, severity, summary, site, group_values,
    operands, opened_at, last_seen_at, acknowledged_by, resolved_at, reopened, occurrences, firing_groups,
    clear_pending, timeline, entries_dropped, revision
)
select
    $1, i.incident_id, i.rule_id, i.version_id, i.dedup_key, i.state, i.severity, i.summary, i.site,
    i.group_values, i.operands, timestamptz 'epoch' + i.opened_us * interval '1 microsecond',
    timestamptz 'epoch' + i.last_seen_us * interval '1 microsecond', i.acknowledged_by,
    timestamptz 'epoch' + i.resolved_us * interval '1 microsecond', i.reopened, i.occurrences, i.firing_groups,
    i.clear_pending, i.timeline, i.entries_dropped, i.revision
from jsonb_to_recordset($2::jsonb) as i (
    incident_id uuid, rule_id text, version_id text, dedup_key text, state text, severity text, summary text,
    site text, group_values jsonb, operands jsonb, opened_us bigint, last_seen_us bigint, acknowledged_by text,
    resolved_us bigint, reopened integer, occurrences bigint, firing_groups integer, clear_pending boolean,
    timeline jsonb, entries_dropped integer, revision bigint
)
on conflict (tenant_id, incident_id) do update set
    version_id = excluded.version_id,
    state = excluded.state,
    severity = excluded.severity,
    summary = excluded.summary,
    site = excluded.site,
    group_values = excluded.group_values,
    operands = excluded.operands,
    last_seen_at = excluded.last_seen_at,
    acknowledged_by = excluded.acknowledged_by,
    resolved_at = excluded.resolved_at,
    reopened = excluded.reopened,
    occurrences = excluded.occurrences,
    firing_groups = excluded.firing_groups,
    clear_pending = excluded.clear_pending,
    timeline = excluded.timeline,
    entries_dropped = excluded.entries_dropped,
    revision = excluded.revision
