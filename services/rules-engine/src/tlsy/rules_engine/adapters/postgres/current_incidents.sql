-- Of each dedup key of $2 the incident that is not resolved, else the newest.
select
    i.incident_id, i.rule_id, i.version_id, i.dedup_key, i.state, i.severity, i.summary, i.group_values::text,
    i.operands::text, i.opened_at, i.last_seen_at, i.acknowledged_by, i.resolved_at, i.reopened,
    i.occurrences, i.firing_groups, i.clear_pending, i.timeline::text, i.entries_dropped, i.revision
from unnest($2::text[]) as k (dedup_key)
cross join lateral (
    select n.incident_id
    from incidents n
    where n.tenant_id = $1 and n.dedup_key = k.dedup_key
    order by n.state = 'RESOLVED', n.incident_id desc
    limit 1
) as newest
join incidents i on i.tenant_id = $1 and i.incident_id = newest.incident_id
for update of i
