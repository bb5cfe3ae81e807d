"""An administrator's token for one of a tenant below."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tlsy.identity.domain.exchange import (
    ExchangeRequest,
    Granted,
    ProviderAccess,
    Refused,
    decide,
    outside_hierarchy,
)
from tlsy.rpc.errors import PermissionDenied, RecordedDenial
from tlsy.rpc.permissions import RoleBinding as TokenRole
from tlsy.rpc.tokens import Actor
from tlsy.runtime.ids import PLATFORM_TENANT_ID, Slug
from tlsy.tenancy.context import TenantState
from tlsy.tenancy.errors import NotWritable, UnknownTenant

if TYPE_CHECKING:
    from datetime import timedelta

    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.handlers.issuing import IssuedToken, Issuer
    from tlsy.identity.ports import Directories
    from tlsy.rpc.call import Call
    from tlsy.rpc.tokens import TokenClaims
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork

_DENIED: Final = "You may not act in that tenant."
#: What a copy of the catalogue that is a moment behind says of a new tenant, or of one that moved.
_BEHIND: Final = frozenset({"NOT_AN_ANCESTOR", "TENANT_NOT_ACTIVE"})


@dataclass(frozen=True, slots=True)
class ExchangedToken:
    """A token of the target tenant and the one role in it."""

    token: IssuedToken
    role: str


class ExchangeToken:
    """Decided and audited in the target, then audited in the caller's tenant; only then is a token made.

    A caller outside the hierarchy never gets as far as the target's database. The new token is for no other
    services than the caller's. It counts as issued when the caller's was, and ends with it at the latest: a
    revocation of the caller refuses it too, even one that reaches this service only after the exchange.
    """

    def __init__(
        self,
        tenancy: Tenancy,
        directories: Directories,
        effects: Effects,
        issuer: Issuer,
        lifetime: timedelta,
    ) -> None:
        self._tenancy = tenancy
        self._directories = directories
        self._effects = effects
        self._issuer = issuer
        self._lifetime = lifetime

    async def run(self, call: Call, slug: str, reason: str) -> ExchangedToken:
        """A token to act in the tenant `slug`, with a reason for both audit logs.

        Raises:
            RecordedDenial: reasons NOT_AN_ANCESTOR (there may be no such tenant), ALREADY_EXCHANGED,
                TARGET_IS_ORIGIN, TENANT_NOT_ACTIVE, PROVIDER_ACCESS_DENIED, ONBOARDING_CLOSED.
            PermissionDenied: the same, of a caller whose own tenant is suspended.
        """
        origin, claims = call.required_tenant(), call.claims
        if claims is None:
            raise RuntimeError("an exchange was let through without a token")
        target, verdict = await self._decide(call, claims, origin, slug, reason)
        outcome = "OK" if isinstance(verdict, Granted) else verdict.reason
        try:
            await self._tenancy.run(
                origin.tenant_id, lambda tx: self._audit(tx, call, slug, outcome, reason), write=True
            )
        except NotWritable:
            # Suspended: what is not recorded here the interceptor tells, as of all that it refuses.
            told = "TENANT_NOT_ACTIVE" if isinstance(verdict, Granted) else outcome
            raise PermissionDenied(told, _DENIED) from None
        if target is None or not isinstance(verdict, Granted):
            raise RecordedDenial(outcome, _DENIED)
        return ExchangedToken(self._issue(claims, origin, target, verdict.role), verdict.role)

    async def _decide(
        self, call: Call, claims: TokenClaims, origin: TenantEntry, slug: str, reason: str
    ) -> tuple[TenantEntry | None, Granted | Refused]:
        target = self._seek(claims, origin, slug)
        if isinstance(target, Refused) and target.reason in _BEHIND:
            # Of each of them, there or not: how long it takes is not to tell which tenants there are.
            await self._tenancy.catalog.catch_up()
            target = self._seek(claims, origin, slug)
        if isinstance(target, Refused):
            return None, target
        request = _asked(claims, origin, target)

        async def enter(tx: UnitOfWork) -> Granted | Refused:
            facts = await self._directories.read(tx)
            verdict = decide(replace(request, onboarded=facts.onboarded))
            outcome = "OK" if isinstance(verdict, Granted) else verdict.reason
            await self._audit(tx, call, slug, outcome, reason)
            return verdict

        try:
            return target, await self._tenancy.run(target.tenant_id, enter, write=True)
        except NotWritable:
            return target, Refused("TENANT_NOT_ACTIVE")

    def _seek(self, claims: TokenClaims, origin: TenantEntry, slug: str) -> TenantEntry | Refused:
        """The tenant, as it is known here, or why the caller has no business with it."""
        try:
            target = self._tenancy.catalog.by_slug(Slug(slug))
        except UnknownTenant:
            return Refused("NOT_AN_ANCESTOR")
        outside = outside_hierarchy(_asked(claims, origin, target))
        return target if outside is None else Refused(outside)

    async def _audit(self, tx: UnitOfWork, call: Call, slug: str, outcome: str, reason: str) -> None:
        details = {"reason": reason}
        self._effects.audit(tx, call, resource=f"tenants/{slug}", outcome=outcome, details=details)

    def _issue(self, claims: TokenClaims, origin: TenantEntry, target: TenantEntry, role: str) -> IssuedToken:
        ends = min(self._effects.now() + self._lifetime, datetime.fromtimestamp(claims.expires_at, UTC))
        return self._issuer.issue(
            target,
            claims.principal,
            (TokenRole(role),),
            issued_at=datetime.fromtimestamp(claims.issued_at, UTC),
            expires_at=ends,
            audience=claims.audience,
            actor=Actor(origin.tenant_id, claims.principal),
        )


def _asked(claims: TokenClaims, origin: TenantEntry, target: TenantEntry) -> ExchangeRequest:
    return ExchangeRequest(
        origin=origin.tenant_id,
        platform=PLATFORM_TENANT_ID,
        already_exchanged=claims.actor is not None,
        target=target.tenant_id,
        target_ancestors=target.ancestors,
        target_active=target.state is TenantState.ACTIVE,
        provider_access=ProviderAccess(target.provider_access),
        onboarded=False,
    )
