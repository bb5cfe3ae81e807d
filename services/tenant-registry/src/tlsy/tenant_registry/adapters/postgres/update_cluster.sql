update clusters set max_tenants = $2, cordoned = $3, version = version + 1 where cluster_id = $1 returning version
