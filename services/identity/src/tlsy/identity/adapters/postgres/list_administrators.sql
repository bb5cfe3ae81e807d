select b.principal_kind, b.principal_id
from role_bindings b
where b.tenant_id = $1 and b.role = $2 and b.module = '' and (
    exists (
        select from users u
        where u.tenant_id = b.tenant_id and u.user_id = b.principal_id and b.principal_kind = 'users'
            and not u.disabled
    ) or exists (
        select from api_keys k
        where k.tenant_id = b.tenant_id and k.key_id = b.principal_id and b.principal_kind = 'apiKeys'
            and k.revoke_time is null and (k.expire_time is null or k.expire_time > $3)
    )
)
order by b.binding_id
limit 100
