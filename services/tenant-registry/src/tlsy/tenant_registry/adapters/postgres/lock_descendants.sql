select __tenant_columns__ from tenants
where tenant_id = subject_id and state <> 'DELETED' and subject_id in (
    select d.subject_id from tenants d where d.tenant_id = $1 and d.subject_id <> $1
)
order by cardinality(ancestor_ids), subject_id
for update
