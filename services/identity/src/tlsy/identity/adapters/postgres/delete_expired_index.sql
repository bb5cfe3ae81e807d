delete from revocation_index where expire_time < $1
