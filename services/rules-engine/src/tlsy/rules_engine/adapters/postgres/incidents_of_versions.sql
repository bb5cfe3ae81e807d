-- Some of those that versions $2 opened and that are not resolved.
select
    i.incident_id, i.rule_id, i.version_id, i.dedup_key, i.state, i.severity, i.summary, i.group_values::text,
    i.operands::text, i.opened_at, i.last_seen_at, i.acknowledged_by, i.resolved_at, i.reopened,
    i.occurrences, i.firing_groups, i.clear_pending, i.timeline::text, i.entries_dropped, i.revision
from incidents i
where i.tenant_id = $1 and i.version_id = any($2::text[]) and i.state <> 'RESOLVED'
order by i.incident_id
limit $3
for update of i
