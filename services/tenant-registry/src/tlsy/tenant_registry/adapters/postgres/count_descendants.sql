select count(*) from tenants where tenant_id = $1 and subject_id <> $1 and state <> 'DELETED'
