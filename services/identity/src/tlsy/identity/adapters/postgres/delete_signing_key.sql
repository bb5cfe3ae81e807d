delete from signing_keys where kid = $1
