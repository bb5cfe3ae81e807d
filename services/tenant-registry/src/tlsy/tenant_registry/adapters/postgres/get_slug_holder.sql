-- The very slug before one that looks like it.
select slug from tenants
where tenant_id = subject_id and state <> 'DELETED' and (slug = $1 or skeleton = $2)
order by slug <> $1
limit 1
