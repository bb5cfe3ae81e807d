"""Tokens: JSON web tokens signed with ES256, verified locally.

Identity signs those of people and agents; each service signs its own, for one callee, with its own key. The
issuer named in a token decides whose keys may verify it, and the only algorithm is ES256: a token that says
otherwise is refused before any key is looked at.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError

from tlsy.rpc.errors import Unauthenticated, Unavailable
from tlsy.rpc.keys import ALGORITHM, SigningKey, load_public_keys, load_signing_key
from tlsy.rpc.permissions import Grants, RoleBinding, grants_of
from tlsy.runtime.ids import (
    PLATFORM_SLUG,
    PLATFORM_TENANT_ID,
    SERVICE_PREFIX,
    PrincipalName,
    Slug,
    TenantId,
    service_principal,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from joserfc.jwk import ECKey

    from tlsy.rpc.keys import Jwks
    from tlsy.rpc.revocations import DenyList
    from tlsy.runtime.clock import Clock

IDENTITY_ISSUER: Final = "tlsy.identity"
#: In the audience of a token that is for every service of the suite.
SUITE_AUDIENCE: Final = "tlsy"
MAX_TOKEN_BYTES: Final = 4096
#: Longer-lived tokens are refused, whoever signed them: revocations are only kept for as long.
MAX_LIFETIME_S: Final = 3600.0
MAX_SKEW_S: Final = 30.0
#: A header that says anything else asks for something that is not done here.
_HEADER_KEYS: Final = frozenset({"alg", "kid", "typ"})
_MAX_ROLES: Final = 100
_CACHE_S: Final = 30.0
_MAX_CACHED: Final = 10_000
_SERVICE_LIFETIME_S: Final = 300.0
_SERVICE_RENEW_BEFORE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Actor:
    """Who an exchanged token's bearer is in its own tenant."""

    tenant_id: TenantId
    principal: PrincipalName


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a token says.

    Attributes:
        issuer: IDENTITY_ISSUER, or "services/<name>" for a service's own.
        principal: "tenants/{slug}/users/{uuid}", "tenants/{slug}/apiKeys/{uuid}", "services/{name}".
        tenant_id: the one tenant that the token is good for.
        slug: that tenant's, when the token was issued.
        audience: services that take it; SUITE_AUDIENCE for all.
        roles: in that tenant.
        issued_at: Unix time with its fraction, so that what is issued right after a revocation counts.
        expires_at: Unix time.
        token_id: unique.
        key_id: of the key that signed it.
        actor: set on exchanged tokens: the bearer's own tenant and principal.
    """

    issuer: str
    principal: PrincipalName
    tenant_id: TenantId
    slug: Slug
    audience: tuple[str, ...]
    roles: tuple[RoleBinding, ...]
    issued_at: float
    expires_at: float
    token_id: str
    key_id: str
    actor: Actor | None = None

    @property
    def of_service(self) -> bool:
        """Whether a service signed it for itself."""
        return self.issuer.startswith(SERVICE_PREFIX)


class TokenRevoked(Unauthenticated):
    """Good but for a revocation; `claims` says whose it was."""

    def __init__(self, claims: TokenClaims) -> None:
        super().__init__("TOKEN_REVOKED", "The token was revoked; log in again.")
        self.claims = claims


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """A token that was found good, and what it permits."""

    claims: TokenClaims
    grants: Grants


def issue_token(key: SigningKey, claims: TokenClaims) -> str:
    """The signed token; `claims.key_id` must be the key's."""
    if claims.key_id != key.kid:
        raise ValueError("the claims name another key")
    payload: dict[str, Any] = {
        "iss": claims.issuer,
        "sub": claims.principal,
        "tid": str(claims.tenant_id),
        "slug": claims.slug,
        "aud": list(claims.audience),
        "roles": [[binding.role, binding.module] for binding in claims.roles],
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "jti": claims.token_id,
    }
    if claims.actor is not None:
        payload["act"] = {"tid": str(claims.actor.tenant_id), "sub": claims.actor.principal}
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": "JWT"}, payload, key.key, [ALGORITHM])


class TokenVerifier:
    """Decides whether a token is good for one service.

    A good token is remembered by its hash for 30 s at most, which saves the signature check; its expiry and
    the deny-list are looked at each time. What is bad is not remembered.
    """

    __slots__ = ("_cache", "_clock", "_deny_list", "_keys", "_service", "_trust")

    def __init__(
        self, service: str, *, keys: Jwks, trust: Mapping[str, str], deny_list: DenyList, clock: Clock
    ) -> None:
        """Wire it.

        Args:
            service: whose audience counts.
            keys: identity's.
            trust: service name to the JWKS (JSON) that its own tokens verify with.
            deny_list: whose tokens are refused.
            clock: what the time is.
        """
        self._service = service
        self._keys = keys
        self._trust = {name: load_public_keys(jwks) for name, jwks in trust.items()}
        self._deny_list = deny_list
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[VerifiedToken, float]] = OrderedDict()

    async def verify(self, token: str, *, sent_at: datetime | None = None) -> VerifiedToken:
        """The token's claims and grants.

        With `sent_at`, which only the suite itself may have noted, the token must have been good then: what
        was on its way for long is not refused for that. It must still be so young that its revocation would
        be known, and is refused if it was revoked meanwhile.

        Raises:
            Unauthenticated: reasons TOKEN_TOO_LARGE, TOKEN_MALFORMED, TOKEN_ALGORITHM, TOKEN_ISSUER,
                TOKEN_KEY_UNKNOWN, TOKEN_SIGNATURE, TOKEN_AUDIENCE, TOKEN_NOT_YET_VALID, TOKEN_EXPIRED,
                TOKEN_LIFETIME; as TokenRevoked: TOKEN_REVOKED.
            Unavailable: reasons KEYS_UNAVAILABLE, REVOCATIONS_UNAVAILABLE; identity's keys, or whose tokens
                are to be refused, have never been read.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated("TOKEN_TOO_LARGE", "The token is longer than any that is issued.")
        digest = hashlib.sha256(token.encode()).digest()
        cached = self._cache.get(digest)
        if cached is not None and cached[1] > self._clock.monotonic():
            verified = cached[0]
        else:
            verified = await self._verify_signed(token)
            self._cache[digest] = (verified, self._clock.monotonic() + _CACHE_S)
            self._cache.move_to_end(digest)
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        self.check_now(verified.claims, sent_at)
        return verified

    def check_now(self, claims: TokenClaims, sent_at: datetime | None = None) -> None:
        """What may change while a token lives: the time and the deny-list.

        Args:
            claims: of a token whose signature was good.
            sent_at: when it was used, if not now; it must be young enough for the deny-list to cover it.

        Raises:
            Unauthenticated: TOKEN_EXPIRED, TOKEN_NOT_YET_VALID; as TokenRevoked: TOKEN_REVOKED.
            Unavailable: REVOCATIONS_UNAVAILABLE.
        """
        now = self._clock.now().timestamp()
        used_at = now if sent_at is None else sent_at.timestamp()
        if claims.expires_at <= used_at or claims.issued_at + MAX_LIFETIME_S <= now:
            raise Unauthenticated("TOKEN_EXPIRED", "The token has expired; get a new one.")
        if claims.issued_at > now + MAX_SKEW_S:
            raise Unauthenticated("TOKEN_NOT_YET_VALID", "The token is from the future; check the clocks.")
        if claims.of_service:
            return
        if not self._deny_list.complete:
            text = "Whose tokens were revoked is not known here yet."
            raise Unavailable("REVOCATIONS_UNAVAILABLE", text, retry_after_s=1.0)
        home = claims.actor.tenant_id if claims.actor is not None else claims.tenant_id
        who = claims.actor.principal if claims.actor is not None else claims.principal
        if self._deny_list.refuses(home, who, claims.issued_at):
            raise TokenRevoked(claims)

    async def _verify_signed(self, token: str) -> VerifiedToken:
        header, unverified = _peek(token)
        if header.get("alg") != ALGORITHM:
            raise Unauthenticated("TOKEN_ALGORITHM", "Tokens are signed with ES256 and nothing else.")
        kid, issuer = header.get("kid"), unverified.get("iss")
        if not isinstance(kid, str) or not isinstance(issuer, str) or not _HEADER_KEYS.issuperset(header):
            raise _malformed()
        key = await self._key(issuer, kid)
        try:
            decoded = jwt.decode(token, key, [ALGORITHM])
        except JoseError as error:
            raise Unauthenticated("TOKEN_SIGNATURE", "The token's signature is not good.") from error
        except Exception:  # noqa: BLE001 - anybody can send it: whatever it does to the library is its own fault
            raise _malformed() from None
        claims = _claims(decoded.claims, kid)
        self._check_issued(claims)
        return VerifiedToken(claims, grants_of(claims.roles))

    async def _key(self, issuer: str, kid: str) -> ECKey:
        if issuer == IDENTITY_ISSUER:
            key = await self._keys.key(kid)
            if key is None and not self._keys.loaded:
                raise Unavailable("KEYS_UNAVAILABLE", "Tokens cannot be checked yet.", retry_after_s=1.0)
        elif issuer.startswith(SERVICE_PREFIX):
            key = self._trust.get(issuer.removeprefix(SERVICE_PREFIX), {}).get(kid)
        else:
            raise Unauthenticated("TOKEN_ISSUER", "The token's issuer is not one of this installation.")
        if key is None:
            raise Unauthenticated("TOKEN_KEY_UNKNOWN", "The token's key is not known; get a new token.")
        return key

    def _check_issued(self, claims: TokenClaims) -> None:
        """What does not change while the token lives."""
        accepted = {self._service} if claims.of_service else {self._service, SUITE_AUDIENCE}
        if accepted.isdisjoint(claims.audience):
            raise Unauthenticated("TOKEN_AUDIENCE", f"The token is not for {self._service}.")
        if not 0 < claims.expires_at - claims.issued_at <= MAX_LIFETIME_S:
            raise Unauthenticated("TOKEN_LIFETIME", "The token lives longer than tokens may.")
        if claims.of_service and (
            claims.principal != claims.issuer
            or claims.tenant_id != PLATFORM_TENANT_ID
            or claims.roles != SERVICE_ROLES
            or claims.actor is not None
        ):
            raise Unauthenticated("TOKEN_ISSUER", "A service may sign tokens of itself only.")
        if not claims.of_service and not set(SERVICE_ROLES).isdisjoint(claims.roles):
            raise Unauthenticated("TOKEN_ISSUER", "The role of services is in their own tokens only.")


#: The one thing that a service's own token carries.
SERVICE_ROLES: Final = (RoleBinding("service"),)


class ServiceTokens:
    """The tokens that a service signs for itself, one per callee, renewed a minute before they expire."""

    __slots__ = ("_cache", "_clock", "_key", "_new_id", "_service")

    def __init__(self, service: str, private_jwk: str, *, clock: Clock, new_id: Callable[[], UUID]) -> None:
        self._service = service
        self._key = load_signing_key(private_jwk)
        self._clock = clock
        self._new_id = new_id
        self._cache: dict[str, tuple[str, float]] = {}

    def token_for(self, callee: str) -> str:
        """A token that `callee` takes, good for a minute at least."""
        now = self._clock.now().timestamp()
        cached = self._cache.get(callee)
        if cached is not None and now < cached[1] - _SERVICE_RENEW_BEFORE_S:
            return cached[0]
        name = service_principal(self._service)
        claims = TokenClaims(
            issuer=name,
            principal=name,
            tenant_id=PLATFORM_TENANT_ID,
            slug=PLATFORM_SLUG,
            audience=(callee,),
            roles=SERVICE_ROLES,
            issued_at=now,
            expires_at=now + _SERVICE_LIFETIME_S,
            token_id=str(self._new_id()),
            key_id=self._key.kid,
        )
        token = issue_token(self._key, claims)
        self._cache[callee] = (token, claims.expires_at)
        return token


def _peek(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and payload before anything is verified: only what chooses the key may be read from them."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise _malformed()
    try:
        header, payload = (json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in parts[:2])
    except (ValueError, RecursionError, binascii.Error):
        raise _malformed() from None
    if not isinstance(header, dict) or not isinstance(payload, dict):
        raise _malformed()
    return header, payload


def _claims(payload: Mapping[str, Any], kid: str) -> TokenClaims:
    try:
        actor = payload.get("act")
        roles, audience = payload["roles"], payload["aud"]
        if not isinstance(audience, list) or len(roles) > _MAX_ROLES:
            raise _malformed()
        return TokenClaims(
            issuer=_text(payload["iss"]),
            principal=PrincipalName(_text(payload["sub"])),
            tenant_id=TenantId(UUID(_text(payload["tid"]))),
            slug=Slug(_text(payload["slug"])),
            audience=tuple(_text(service) for service in audience),
            roles=tuple(
                RoleBinding(_text(role), None if module is None else _text(module)) for role, module in roles
            ),
            issued_at=max(_number(payload["iat"]), _number(payload.get("nbf", payload["iat"]))),
            expires_at=_number(payload["exp"]),
            token_id=_text(payload["jti"]),
            key_id=kid,
            actor=None
            if actor is None
            else Actor(TenantId(UUID(_text(actor["tid"]))), PrincipalName(_text(actor["sub"]))),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _malformed() from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("not a text")
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError("not a number")
    return float(value)


def _malformed() -> Unauthenticated:
    return Unauthenticated("TOKEN_MALFORMED", "This is not a token of this installation.")
