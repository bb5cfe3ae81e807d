-- Those who can log in: the embedded directory is the only one, so without a password nobody can.
select b.principal_kind, b.principal_id
from role_bindings b
join users u on u.tenant_id = b.tenant_id and u.user_id = b.principal_id
where b.tenant_id = $1 and b.role = $2 and b.module = '' and b.principal_kind = 'users' and not u.disabled
    and u.password_hash is not null
order by b.binding_id
limit 100
