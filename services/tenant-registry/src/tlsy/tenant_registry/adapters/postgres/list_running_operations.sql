select __operation_columns__ from operations
where outcome = 'RUNNING' and verb = $1 and target_id in (select t.subject_id from tenants t where t.tenant_id = $2)
order by operation_id
limit 1000
