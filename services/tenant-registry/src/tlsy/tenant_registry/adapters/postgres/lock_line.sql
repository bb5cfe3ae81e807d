-- A tenant and its ancestors, topmost first; nobody changes them, nor creates below them, before the end.
select __tenant_columns__ from tenants
where tenant_id = subject_id and subject_id in (
    select $1::uuid
    union all
    select unnest(t.ancestor_ids) from tenants t where t.tenant_id = $1 and t.subject_id = $1
)
order by cardinality(ancestor_ids), subject_id
for update
