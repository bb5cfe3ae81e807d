update clusters set tenant_count = greatest(tenant_count - 1, 0) where cluster_id = $1
