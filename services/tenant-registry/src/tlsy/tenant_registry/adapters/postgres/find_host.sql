select t.subject_id, t.slug from tenants t
where t.tenant_id = t.subject_id and t.state not in ('DELETING', 'DELETED')
    and (t.slug = $1 or t.subject_id = (select h.tenant_id from host_names h where h.host_name = $2))
limit 1
