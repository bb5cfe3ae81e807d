delete from revocations where tenant_id = $1 and expire_time < $2
