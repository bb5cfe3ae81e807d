update signing_keys
set slot = $2, private_sealed = $3, signing_since = $4, verifies_until = $5
where kid = $1
