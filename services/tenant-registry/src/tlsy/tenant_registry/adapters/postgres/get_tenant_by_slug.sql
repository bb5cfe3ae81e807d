select __tenant_columns__ from tenants
where slug = $1 and state <> 'DELETED'
limit 1
