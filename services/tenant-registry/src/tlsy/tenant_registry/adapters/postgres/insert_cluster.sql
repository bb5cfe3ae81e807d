insert into clusters (
    cluster_id, region, country, kind, secret_ref, max_tenants, cordoned, tenant_count, unreachable_since, version
)
values ($1, $2, $3, $4, $5, $6, $7, 0, null, 1)
on conflict (cluster_id) do nothing
returning true
