select binding_id, principal_kind, principal_id, role, module, create_time
from role_bindings
where tenant_id = $1 and principal_kind = $2 and principal_id = $3 and binding_id > $4
order by binding_id
limit $5
