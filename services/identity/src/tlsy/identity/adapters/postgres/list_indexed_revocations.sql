select tenant_id, principal, revoke_time, expire_time
from revocation_index
where (tenant_id, principal) > ($1, $2) and expire_time > $3
order by tenant_id, principal
limit $4
