-- A tenant that lost the entitlement keeps its host names, and they lead nowhere until it has it again.
select t.subject_id, t.slug from tenants t
where t.tenant_id = t.subject_id and t.state not in ('DELETING', 'DELETED')
    and (
        t.slug = $1
        or t.subject_id = (select h.tenant_id from host_names h where h.host_name = $2)
        and (t.entitlements ->> 'custom_host_names')::bigint > 0
    )
limit 1
