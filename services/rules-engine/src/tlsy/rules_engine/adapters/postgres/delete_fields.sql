delete from observed_fields f
using unnest($2::text[], $3::text[]) as g (event_type, path)
where f.tenant_id = $1 and f.event_type = g.event_type and f.path = g.path
