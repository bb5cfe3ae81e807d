"""ES256 keys: the one kind there is, the set that verifies tokens, and how that set stays fresh."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tlsy.runtime.clock import Clock

ALGORITHM: Final = "ES256"
_CURVE: Final = "P-256"
_PUBLIC_PARTS: Final = ("kty", "crv", "x", "y", "kid")
_MAX_KEYS: Final = 32
_MAX_NEGATIVE: Final = 128


class KeyInvalid(ValueError):  # noqa: N818 - read as a fact
    """Not a key that may sign or verify here."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its id."""

    kid: str
    key: ECKey

    @property
    def private_jwk(self) -> str:
        """RFC 7517 JSON; a secret."""
        return json.dumps(self.key.as_dict(private=True))

    @property
    def public_jwk(self) -> dict[str, Any]:
        """What others verify with."""
        parts: dict[str, Any] = {**self.key.as_dict(private=False), "alg": ALGORITHM, "use": "sig"}
        return parts


def generate_key() -> SigningKey:
    """A new key; its id is the RFC 7638 thumbprint."""
    key = ECKey.generate_key(_CURVE, private=True, auto_kid=True)
    return SigningKey(str(key.kid), key)


def load_signing_key(private_jwk: str) -> SigningKey:
    """The key of an RFC 7517 JSON text.

    Raises:
        KeyInvalid: not an ES256 private key with an id.
    """
    try:
        parts = json.loads(private_jwk)
        key = ECKey.import_key(parts)
    except (ValueError, JoseError) as error:
        raise KeyInvalid("not a JWK") from error
    if parts.get("crv") != _CURVE or not key.is_private or not key.kid:
        raise KeyInvalid("an ES256 private key with a kid is needed")
    return SigningKey(str(key.kid), key)


def jwks_of(keys: tuple[SigningKey, ...]) -> str:
    """The RFC 7517 JSON of the public halves."""
    return json.dumps({"keys": [key.public_jwk for key in keys]})


def load_public_keys(jwks: str) -> Mapping[str, ECKey]:
    """Key id to public key, of the ES256 keys in a JWKS; other kinds and private parts are left out.

    Raises:
        KeyInvalid: not a JWKS, or more than 32 keys.
    """
    try:
        listed = json.loads(jwks)["keys"]
    except (ValueError, KeyError, TypeError) as error:
        raise KeyInvalid("not a JWKS") from error
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise KeyInvalid(f"a JWKS has a list of at most {_MAX_KEYS} keys")
    found: dict[str, ECKey] = {}
    for parts in listed:
        if not isinstance(parts, dict) or not _verifies_es256(parts):
            continue
        try:
            found[parts["kid"]] = ECKey.import_key({name: parts[name] for name in _PUBLIC_PARTS})
        except (KeyError, ValueError, JoseError) as error:
            raise KeyInvalid("a key of the JWKS is malformed") from error
    return found


def _verifies_es256(parts: Mapping[str, Any]) -> bool:
    return (
        parts.get("kty") == "EC"
        and parts.get("crv") == _CURVE
        and parts.get("alg", ALGORITHM) == ALGORITHM
        and parts.get("use", "sig") == "sig"
        and isinstance(parts.get("kid"), str)
    )


class Jwks:
    """Identity's public keys, kept in memory.

    Keys are announced before they sign, so that a rotation finds them here already; events bring each change
    at once (`replace`). Sets have versions, and none replaces a newer one: events come late and twice, and a
    replica of identity may be behind another. A known key is answered from memory, and one read older than
    `max_age_s` starts a refresh beside it. An unknown key id asks identity at most once per `cooldown_s`,
    whatever the number of ids, and the last 128 ids that identity did not know are not asked for again until
    a new set comes.
    While identity is away the last set stays in use.
    """

    __slots__ = (
        "_clock",
        "_cooldown_s",
        "_fetch",
        "_keys",
        "_last_attempt",
        "_last_load",
        "_logger",
        "_max_age_s",
        "_negative",
        "_refreshing",
        "_timeout_s",
        "_version",
    )

    def __init__(
        self,
        fetch: Callable[[], Awaitable[tuple[str, int]]],
        clock: Clock,
        *,
        max_age_s: float = 300.0,
        cooldown_s: float = 30.0,
        timeout_s: float = 5.0,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._max_age_s = max_age_s
        self._cooldown_s = cooldown_s
        self._timeout_s = timeout_s
        self._keys: Mapping[str, ECKey] = {}
        self._negative: dict[str, None] = {}
        self._last_attempt: float | None = None
        self._last_load: float | None = None
        self._version = 0
        self._refreshing: asyncio.Task[None] | None = None
        self._logger = get_logger("rpc.keys")

    @property
    def loaded(self) -> bool:
        """Whether there has ever been a set."""
        return self._last_load is not None

    def age_s(self) -> float:
        """Seconds since the set was last told; infinite before the first."""
        return self._clock.monotonic() - self._last_load if self._last_load is not None else float("inf")

    def replace(self, jwks: str, version: int) -> None:
        """Take this set from now on, unless a newer one was told.

        Args:
            jwks: RFC 7517 JSON.
            version: grows with each change of the set; 0: told before there were versions.

        Raises:
            KeyInvalid: it is none; the one before stays.
        """
        if version < self._version:
            return
        self._keys = load_public_keys(jwks)
        self._version = version
        self._last_load = self._clock.monotonic()
        self._negative.clear()

    async def key(self, kid: str) -> ECKey | None:
        """The key of this id, or None if identity does not know it (or cannot be asked now)."""
        found = self._keys.get(kid)
        if found is not None:
            if self.age_s() > self._max_age_s and self._may_ask():
                self._refresh()
            return found
        if kid in self._negative:
            return None
        if self._may_ask():
            self._refresh()
        if self._refreshing is not None:
            await asyncio.wait({self._refreshing})
        found = self._keys.get(kid)
        if found is None and self.loaded:
            self._negative[kid] = None
            if len(self._negative) > _MAX_NEGATIVE:
                del self._negative[next(iter(self._negative))]
        return found

    async def refresh(self) -> bool:
        """Ask identity now, whatever the cooldown; returns whether there is a set."""
        self._refresh()
        if self._refreshing is not None:
            await asyncio.wait({self._refreshing})
        return self.loaded

    def _may_ask(self) -> bool:
        """Before the first set the cooldown is a second: everything waits for it."""
        cooldown = self._cooldown_s if self.loaded else 1.0
        return self._last_attempt is None or self._clock.monotonic() - self._last_attempt >= cooldown

    def _refresh(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._last_attempt = self._clock.monotonic()
            self._refreshing = asyncio.create_task(self._load())

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                self.replace(*await self._fetch())
        except Exception as error:  # noqa: BLE001 - whatever it is, the last set stays in use
            self._logger.warning("public keys could not be read", error=str(error), age_s=self.age_s())
