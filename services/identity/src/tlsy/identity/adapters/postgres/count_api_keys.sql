select count(*)
from api_keys
where tenant_id = $1 and revoke_time is null and (expire_time is null or expire_time > $2)
