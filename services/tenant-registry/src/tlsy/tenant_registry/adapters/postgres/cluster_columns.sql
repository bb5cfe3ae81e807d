cluster_id, region, country, kind, secret_ref, max_tenants, cordoned, tenant_count,
    unreachable_since is null as reachable, schemas_full, version
