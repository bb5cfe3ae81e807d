"""Tokens of people, agents and exchanged ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tlsy.rpc.permissions import RoleBinding as TokenRole
from tlsy.rpc.tokens import IDENTITY_ISSUER, SUITE_AUDIENCE, TokenClaims
from tlsy.runtime.ids import PrincipalName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from uuid import UUID

    from tlsy.identity.domain.bindings import RoleBinding
    from tlsy.identity.ports import Tokens
    from tlsy.rpc.tokens import Actor
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.catalog import TenantEntry


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and how long it lives."""

    text: str = field(repr=False)
    expires_in_s: float


def token_roles(bindings: Iterable[RoleBinding]) -> tuple[TokenRole, ...]:
    """Bindings as tokens carry them."""
    return tuple(TokenRole(binding.role, binding.module or None) for binding in bindings)


class Issuer:
    """Signs what has been decided."""

    def __init__(self, tokens: Tokens, clock: Clock, ids: Callable[[], UUID]) -> None:
        self._tokens = tokens
        self._clock = clock
        self._ids = ids

    def check_key(self) -> None:
        """Pass if there is a key to sign with; raises Unavailable, reason SIGNING_KEY_UNAVAILABLE."""
        _ = self._tokens.signing_kid

    def issue(
        self,
        tenant: TenantEntry,
        principal: str,
        roles: tuple[TokenRole, ...],
        *,
        issued_at: datetime,
        expires_at: datetime,
        audience: tuple[str, ...] = (),
        actor: Actor | None = None,
    ) -> IssuedToken:
        """A token for `audience`; for the whole suite if that names nothing."""
        claims = TokenClaims(
            issuer=IDENTITY_ISSUER,
            principal=PrincipalName(principal),
            tenant_id=tenant.tenant_id,
            slug=tenant.slug,
            audience=audience or (SUITE_AUDIENCE,),
            roles=roles,
            issued_at=issued_at.timestamp(),
            expires_at=expires_at.timestamp(),
            token_id=str(self._ids()),
            key_id=self._tokens.signing_kid,
            actor=actor,
        )
        left = expires_at - self._clock.now()
        return IssuedToken(self._tokens.issue(claims), left.total_seconds())
