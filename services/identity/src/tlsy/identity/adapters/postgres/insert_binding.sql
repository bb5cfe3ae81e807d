insert into role_bindings (tenant_id, binding_id, principal_kind, principal_id, role, module, create_time)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id, principal_kind, principal_id, role, module) do nothing
returning binding_id
