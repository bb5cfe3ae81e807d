insert into signing_keys (
    kid, slot, public_jwk, private_sealed, announced_time, signing_since, verifies_until
) values ($1, $2, $3, $4, $5, $6, $7)
