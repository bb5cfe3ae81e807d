select kid, slot, public_jwk, private_sealed, announced_time, signing_since, verifies_until
from signing_keys
order by announced_time, kid
limit 1000
