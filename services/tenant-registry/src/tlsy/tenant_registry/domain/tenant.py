"""A tenant: its own choices, what its ancestors leave of them, and its life.

`phase`, `suspend_reason`, `modules`, `tier` and `overrides` are the tenant's own. `state`, `active_modules`,
`active_tier` and `entitlements` are derived from these and the parent's, by `derive` alone; so a child never
has more than its parent, whatever changes where. `epoch` grows with each change of writability, and only
there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tlsy.tenancy.context import TenantState
from tlsy.tenant_registry.domain import entitlements, modules
from tlsy.tenant_registry.domain.errors import NotAllowedNowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.context import IsolationMode
    from tlsy.tenant_registry.domain.kinds import ProviderAccess, SectorProfile, Tier

#: Levels of tenants below a country: the tenant, its subsidiaries, theirs, and theirs.
MAX_DEPTH: Final = 4

#: Why a tenant is SUSPENDED that has not been suspended itself.
PARENT_SUSPENDED: Final = "PARENT_SUSPENDED"

#: Why a tenant is FAILED whose database takes nobody more.
CLUSTER_FULL: Final = "CLUSTER_FULL"

_EDGES: Final[Mapping[TenantState, frozenset[TenantState]]] = MappingProxyType(
    {
        TenantState.PROVISIONING: frozenset({TenantState.ACTIVE, TenantState.FAILED}),
        TenantState.ACTIVE: frozenset({TenantState.DELETING}),
        TenantState.FAILED: frozenset({TenantState.PROVISIONING, TenantState.DELETING}),
        TenantState.DELETING: frozenset({TenantState.DELETED}),
        TenantState.DELETED: frozenset(),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A customer of the platform, or a subsidiary of one.

    Attributes:
        country: code.
        ancestor_ids: from the parent upwards; empty at the top.
        residency: codes of the countries whose clusters may hold it.
        cluster_id, database, schema: the placement.
        phase: own life, of TenantState without SUSPENDED.
        suspend_reason: why it has been suspended itself; empty: it has not.
        failure_reason: why phase is FAILED; else empty.
        state: what it can do, its ancestors considered.
        active_modules, active_tier, entitlements: in effect, its ancestors considered.
        version: place of its last change in the catalogue's one sequence of changes; set by the store.
        erase_after: from when a DELETING tenant's rows may be erased.
        placed: something of it may be on its cluster; before, it can be placed anew, and is not erased there.
    """

    tenant_id: TenantId
    slug: str
    display_name: str
    country: str
    parent_id: TenantId | None
    parent_slug: str
    ancestor_ids: tuple[TenantId, ...]
    sector_profile: SectorProfile
    isolation_mode: IsolationMode
    tier: Tier
    provider_access: ProviderAccess
    locale: str
    time_zone: str
    currency_code: str
    host_names: tuple[str, ...]
    residency: frozenset[str]
    requested_cluster: str
    cluster_id: str
    database: str
    schema: str
    phase: TenantState
    suspend_reason: str
    failure_reason: str
    state: TenantState
    epoch: int
    modules: frozenset[str]
    active_modules: frozenset[str]
    overrides: Mapping[str, int]
    entitlements: Mapping[str, int]
    version: int
    created_at: datetime
    updated_at: datetime
    erase_after: datetime | None
    active_tier: Tier
    placed: bool

    @property
    def state_reason(self) -> str:
        """Why it is FAILED or SUSPENDED; else empty."""
        if self.state is TenantState.FAILED:
            return self.failure_reason
        if self.state is TenantState.SUSPENDED:
            return self.suspend_reason or PARENT_SUSPENDED
        return ""

    @property
    def writable(self) -> bool:
        """Whether the fence lets writers in; true while provisioning: the fence starts open."""
        return self.state in {TenantState.PROVISIONING, TenantState.ACTIVE, TenantState.FAILED}

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return f"v{self.version}"


def derive(tenant: Tenant, parent: Tenant | None, now: datetime) -> Tenant:
    """`tenant` with all that depends on its parent brought up to date; itself where nothing changed."""
    held_back = parent is not None and parent.state is not TenantState.ACTIVE
    state = tenant.phase
    if tenant.phase is TenantState.ACTIVE and (tenant.suspend_reason or held_back):
        state = TenantState.SUSPENDED
    tier = lower_tier(tenant.tier, parent)
    derived = replace(
        tenant,
        state=state,
        active_tier=tier,
        active_modules=modules.active(tenant.modules, None if parent is None else parent.active_modules),
        entitlements=entitlements.effective(
            tier, tenant.overrides, None if parent is None else parent.entitlements
        ),
    )
    if derived == tenant:
        return tenant
    grown = int(derived.writable != tenant.writable)
    return replace(derived, epoch=tenant.epoch + grown, updated_at=now)


def lower_tier(tier: Tier, parent: Tenant | None) -> Tier:
    """`tier`, or the parent's where that is lower."""
    return tier if parent is None else min(tier, parent.active_tier, key=lambda each: each.rank)


def cascade(changed: Tenant, descendants: Iterable[Tenant], now: datetime) -> tuple[Tenant, ...]:
    """Those of `descendants` that are no longer as they were, once their ancestor is `changed`."""
    known = {changed.tenant_id: changed}
    altered: list[Tenant] = []
    for tenant in sorted(descendants, key=lambda each: len(each.ancestor_ids)):
        parent = known[tenant.ancestor_ids[0]]
        derived = derive(tenant, parent, now)
        known[tenant.tenant_id] = derived
        if derived is not tenant:
            altered.append(derived)
    return tuple(altered)


def activated(tenant: Tenant, parent: Tenant | None, now: datetime) -> Tenant:
    """Provisioned: ACTIVE, or SUSPENDED where its parent is by now."""
    return derive(replace(_moved(tenant, TenantState.ACTIVE, now), failure_reason=""), parent, now)


def failed(tenant: Tenant, reason: str, now: datetime) -> Tenant:
    """Provisioning given up, for `reason`; what exists of it stays, and can be taken up again.

    A database that is full refused it before anything was made there.
    """
    moved = _moved(tenant, TenantState.FAILED, now)
    placed = tenant.placed and reason != CLUSTER_FULL
    return replace(moved, failure_reason=reason, state=TenantState.FAILED, placed=placed)


def retried(tenant: Tenant, now: datetime) -> Tenant:
    """A FAILED tenant whose provisioning is taken up where it stopped."""
    moved = _moved(tenant, TenantState.PROVISIONING, now)
    return replace(moved, failure_reason="", state=TenantState.PROVISIONING)


def suspended(tenant: Tenant, parent: Tenant | None, reason: str, now: datetime) -> Tenant:
    """Suspended itself; a second suspension only changes the reason."""
    if tenant.phase is not TenantState.ACTIVE:
        raise NotAllowedNowError("TENANT_NOT_ACTIVE", f"The tenant is {tenant.state}.")
    return derive(replace(tenant, suspend_reason=reason, updated_at=now), parent, now)


def resumed(tenant: Tenant, parent: Tenant | None, now: datetime) -> Tenant:
    """No longer suspended itself; it stays SUSPENDED as long as an ancestor is."""
    if tenant.phase is not TenantState.ACTIVE:
        raise NotAllowedNowError("TENANT_NOT_SUSPENDED", f"The tenant is {tenant.state}.")
    if not tenant.suspend_reason:
        raise NotAllowedNowError("TENANT_NOT_SUSPENDED", "The tenant has not been suspended itself.")
    return derive(replace(tenant, suspend_reason="", updated_at=now), parent, now)


def deleting(tenant: Tenant, erase_after: datetime, now: datetime) -> Tenant:
    """Closed for writers at once, to be erased from `erase_after` on."""
    moved = _moved(tenant, TenantState.DELETING, now)
    return replace(moved, state=TenantState.DELETING, erase_after=erase_after, epoch=tenant.epoch + 1)


def erasing(tenant: Tenant, now: datetime) -> Tenant:
    """A DELETING tenant whose retention time is over: closed for readers too."""
    return replace(tenant, epoch=tenant.epoch + 1, updated_at=now)


def deleted(tenant: Tenant, now: datetime) -> Tenant:
    """Erased, and verified to be; its slug is free again."""
    return replace(_moved(tenant, TenantState.DELETED, now), state=TenantState.DELETED)


def _moved(tenant: Tenant, phase: TenantState, now: datetime) -> Tenant:
    if phase not in _EDGES[tenant.phase]:
        raise NotAllowedNowError("TENANT_STATE", f"A {tenant.phase} tenant does not become {phase}.")
    return replace(tenant, phase=phase, updated_at=now)
