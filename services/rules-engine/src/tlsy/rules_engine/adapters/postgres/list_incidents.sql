-- Newest first, below the id $2; $3: rule and $4: site, empty for all.
select
    i.incident_id, i.rule_id, i.version_id, i.dedup_key, i.state, i.severity, i.summary, i.group_values::text,
    i.operands::text, i.opened_at, i.last_seen_at, i.acknowledged_by, i.resolved_at, i.reopened,
    i.occurrences, i.firing_groups, i.clear_pending, i.timeline::text, i.entries_dropped, i.revision
from incidents i
where
    i.tenant_id = $1
    and i.incident_id < $2
    and ($3::text = '' or i.rule_id = $3)
    and ($4::text = '' or i.site = $4)
order by i.incident_id desc
limit $5
