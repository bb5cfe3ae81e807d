select __tenant_columns__ from tenants
where tenant_id = subject_id and version > $1 and ($2 or state <> 'DELETED')
order by version
limit $3
