"""An API key for a short-lived token."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tlsy.identity.domain.api_keys import parse, refusal, use_is_news
from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef
from tlsy.identity.handlers.guards import administrator_role_of, lock_to_onboard
from tlsy.identity.handlers.issuing import token_roles
from tlsy.identity.handlers.log_in import ANONYMOUS
from tlsy.rpc.denials import DeniedCalls
from tlsy.rpc.errors import FailedPrecondition, Unauthenticated
from tlsy.runtime.ids import PLATFORM_TENANT_ID, TenantId
from tlsy.tenancy.context import TenantState
from tlsy.tenancy.errors import NotWritable, UnknownTenant

if TYPE_CHECKING:
    from datetime import timedelta

    from tlsy.identity.domain.api_keys import PresentedKey
    from tlsy.identity.handlers.budgets import ExchangeLimits
    from tlsy.identity.handlers.effects import Effects
    from tlsy.identity.handlers.issuing import IssuedToken, Issuer
    from tlsy.identity.ports import ApiKeys, Directories, RoleBindings
    from tlsy.rpc.call import Call
    from tlsy.rpc.denials import DenialSink
    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.unit_of_work import Tenancy, UnitOfWork


@dataclass(frozen=True, slots=True)
class ExchangedKey:
    """A token of the key."""

    token: IssuedToken
    slug: str
    principal: str


class ExchangeApiKey:
    """Whatever is wrong with a key, the answer is the same; the audit log tells which it was.

    Denials are added up per minute, and so are uses: one record an hour and key, when `last_used_time` moves.
    """

    def __init__(
        self,
        tenancy: Tenancy,
        *,
        keys: ApiKeys,
        bindings: RoleBindings,
        directories: Directories,
        limits: ExchangeLimits,
        denials: DenialSink,
        effects: Effects,
        issuer: Issuer,
        lifetime: timedelta,
    ) -> None:
        self._tenancy = tenancy
        self._keys = keys
        self._bindings = bindings
        self._directories = directories
        self._limits = limits
        self._denials = denials
        self._effects = effects
        self._issuer = issuer
        self._lifetime = lifetime

    async def run(self, call: Call, text: str, audience: tuple[str, ...]) -> ExchangedKey:
        """A token with the roles that the key has now; it ends with the key at the latest.

        Raises:
            Unauthenticated: reason API_KEY_REFUSED.
            FailedPrecondition: reason TENANT_NOT_ACTIVE.
            ResourceExhausted: reason EXCHANGE_RATE.
        """
        presented = parse(text)
        if presented is None:
            self._deny(call, PLATFORM_TENANT_ID, "KEY_MALFORMED", "")
            raise _refused()
        self._limits.begin(presented)
        tenant_id = TenantId(presented.tenant_id)
        try:
            tenant = self._tenancy.catalog.tenant(tenant_id)
        except UnknownTenant:
            self._deny(call, PLATFORM_TENANT_ID, "TENANT_UNKNOWN", "")
            raise _refused() from None
        if tenant.state is not TenantState.ACTIVE:
            raise self._not_active(call, tenant)
        try:
            outcome = await self._tenancy.run(
                tenant_id, lambda tx: self._exchange(tx, call, tenant, presented, audience), write=True
            )
        except NotWritable:
            raise self._not_active(call, tenant) from None
        if isinstance(outcome, str):
            name = PrincipalRef(PrincipalKind.API_KEY, presented.key_id).name(tenant.slug)
            self._deny(call, tenant_id, outcome, name)
            self._limits.refused(presented)
            raise _refused()
        self._limits.good(presented)
        return outcome

    async def _exchange(
        self,
        tx: UnitOfWork,
        call: Call,
        tenant: TenantEntry,
        presented: PresentedKey,
        audience: tuple[str, ...],
    ) -> ExchangedKey | str:
        ref = PrincipalRef(PrincipalKind.API_KEY, presented.key_id)
        first = await lock_to_onboard(tx, self._directories, self._bindings, ref)
        stored = await self._keys.lock(tx, presented.key_id)
        now = self._effects.now()
        reason = refusal(stored, presented, now)
        if reason is not None or stored is None:
            return reason or "KEY_UNKNOWN"
        bindings = await self._bindings.of(tx, ref)
        role = administrator_role_of(tx)
        if first and any(binding.makes_administrator(role) for binding in bindings):
            await self._directories.mark_first_admin_log_in(tx, now)
        name = ref.name(tenant.slug)
        news = use_is_news(stored, now)
        await self._keys.record_issue(tx, stored.id, now, news=news)
        if news:
            self._effects.audit(tx, call, resource=name, principal=name)
        token = self._issuer.issue(
            tenant,
            name,
            token_roles(bindings),
            issued_at=now,
            expires_at=min(now + self._lifetime, stored.expire_time or datetime.max.replace(tzinfo=UTC)),
            audience=audience,
        )
        return ExchangedKey(token, tenant.slug, name)

    def _not_active(self, call: Call, tenant: TenantEntry) -> FailedPrecondition:
        self._deny(call, tenant.tenant_id, "TENANT_NOT_ACTIVE", f"tenants/{tenant.slug}")
        return FailedPrecondition("TENANT_NOT_ACTIVE", "The tenant is not active.")

    def _deny(self, call: Call, tenant_id: TenantId, reason: str, resource: str) -> None:
        self._denials.denied(
            DeniedCalls(
                tenant_id=tenant_id,
                home_tenant_id=tenant_id,
                principal=ANONYMOUS,
                method=call.method,
                reason=reason,
                resource=resource,
                first_time=self._effects.now(),
                count=1,
            )
        )


def _refused() -> Unauthenticated:
    return Unauthenticated("API_KEY_REFUSED", "This API key is not good (any more).")
