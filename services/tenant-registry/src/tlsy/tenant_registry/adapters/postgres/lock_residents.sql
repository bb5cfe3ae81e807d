-- The tenants of a country, and all below them, whose residency is a part of theirs.
select __tenant_columns__ from tenants
where tenant_id = subject_id and state <> 'DELETED' and (country = $1 or ancestor_ids && array(
    select a.subject_id from tenants a where a.tenant_id = a.subject_id and a.country = $1 and a.state <> 'DELETED'
))
order by cardinality(ancestor_ids), subject_id
for update
