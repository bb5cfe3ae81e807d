select r.version, k.kid, k.slot, k.public_jwk, k.private_sealed, k.announced_time, k.signing_since,
    k.verifies_until
from key_ring r
left join signing_keys k on true
order by k.announced_time, k.kid
limit 1000
