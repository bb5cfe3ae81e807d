-- Decided again under the row's lock: two creations may have chosen the last room.
update clusters set tenant_count = tenant_count + 1
where cluster_id = $1 and not cordoned and (max_tenants = 0 or tenant_count < max_tenants)
returning true
