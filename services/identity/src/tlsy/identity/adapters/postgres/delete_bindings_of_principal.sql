delete from role_bindings where tenant_id = $1 and principal_kind = $2 and principal_id = $3
