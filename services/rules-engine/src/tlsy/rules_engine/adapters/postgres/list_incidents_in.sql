-- The same of the states $6: the newest of each by its index, and of these the newest.
select
    i.incident_id, i.rule_id, i.version_id, i.dedup_key, i.state, i.severity, i.summary, i.group_values::text,
    i.operands::text, i.opened_at, i.last_seen_at, i.acknowledged_by, i.resolved_at, i.reopened,
    i.occurrences, i.firing_groups, i.clear_pending, i.timeline::text, i.entries_dropped, i.revision
from unnest($6::text[]) as wanted (state)
cross join lateral (
    select *
    from incidents n
    where
        n.tenant_id = $1
        and n.state = wanted.state
        and n.incident_id < $2
        and ($3::text = '' or n.rule_id = $3)
        and ($4::text = '' or n.site = $4)
    order by n.incident_id desc
    limit $5
) as i
order by i.incident_id desc
limit $5
