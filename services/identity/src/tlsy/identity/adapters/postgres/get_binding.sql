select binding_id, principal_kind, principal_id, role, module, create_time
from role_bindings
where tenant_id = $1 and binding_id = $2
