"""The signing keys as this process knows them, with the private part of the one that signs opened."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from tlsy.identity.domain import signing
from tlsy.identity.domain.signing import Slot, only, served
from tlsy.rpc.errors import Unavailable
from tlsy.rpc.keys import generate_key, load_signing_key
from tlsy.rpc.tokens import issue_token
from tlsy.runtime.ids import PLATFORM_TENANT_ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tlsy.identity.adapters.sealing import Sealer
    from tlsy.rpc.keys import SigningKey
    from tlsy.rpc.tokens import TokenClaims

_PLACE: Final = (PLATFORM_TENANT_ID, "signing_keys", "private_sealed")


class KeyRing:
    """See `Tokens`. Whoever changes or reads the ring in the database hands it over by `adopt`."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._signer: SigningKey | None = None
        self._jwks = ""
        self._version = 0

    def missing(self) -> str | None:
        """A readiness check: what is missing, if anything is."""
        return None if self._signer is not None else "no key to sign tokens with yet"

    @property
    def signing_kid(self) -> str:
        """See `Tokens.signing_kid`."""
        return self._signing().kid

    def issue(self, claims: TokenClaims) -> str:
        """See `Tokens.issue`."""
        return issue_token(self._signing(), claims)

    def jwks(self) -> tuple[str, int]:
        """See `Tokens.jwks`."""
        self._signing()
        return self._jwks, self._version

    def make(self, slot: Slot, now: datetime) -> signing.SigningKey:
        """See `Tokens.make`."""
        made = generate_key()
        return signing.SigningKey(
            kid=made.kid,
            slot=slot,
            public_jwk=json.dumps(made.public_jwk),
            sealed_private=self._sealer.seal(*_PLACE, made.private_jwk),
            announced_time=now,
            signing_since=now if slot is Slot.SIGNING else None,
        )

    def render(self, keys: Sequence[signing.SigningKey]) -> str:
        """See `Tokens.render`."""
        return json.dumps({"keys": [json.loads(key.public_jwk) for key in served(keys)]})

    def adopt(self, ring: signing.Ring) -> None:
        """See `Tokens.adopt`."""
        current = only(ring.keys, Slot.SIGNING)
        if current is None or current.sealed_private is None or ring.version < self._version:
            return
        if self._signer is None or self._signer.kid != current.kid:
            self._signer = load_signing_key(self._sealer.open(*_PLACE, current.sealed_private))
        self._jwks, self._version = self.render(ring.keys), ring.version

    def _signing(self) -> SigningKey:
        if self._signer is None:
            raise Unavailable("SIGNING_KEY_UNAVAILABLE", "No key to sign with yet.", retry_after_s=1.0)
        return self._signer
