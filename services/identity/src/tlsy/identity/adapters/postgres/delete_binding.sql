delete from role_bindings where tenant_id = $1 and binding_id = $2
