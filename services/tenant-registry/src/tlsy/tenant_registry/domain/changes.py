"""Changes of a tenant that exists, by the platform or by the tenant itself."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from tlsy.tenancy.context import TenantState
from tlsy.tenant_registry.domain import entitlements, hosts, modules
from tlsy.tenant_registry.domain.errors import NotAllowedNowError, Violation
from tlsy.tenant_registry.domain.registration import name_violations, regional_violations
from tlsy.tenant_registry.domain.tenant import derive, lower_tier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from tlsy.tenant_registry.domain.kinds import ProviderAccess, Tier
    from tlsy.tenant_registry.domain.tenant import Tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The fields of an update; None: stays as it is."""

    display_name: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    currency_code: str | None = None
    tier: Tier | None = None
    provider_access: ProviderAccess | None = None
    host_names: tuple[str, ...] | None = None

    def given(self) -> Mapping[str, object]:
        """The fields that change, by name."""
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in held.items() if value is not None}


def change_violations(
    changes: Changes, *, time_zones: frozenset[str], base_domain: str
) -> tuple[Violation, ...]:
    """All that is wrong with `changes` for whatever tenant."""
    return tuple(_change_violations(changes, time_zones, base_domain))


def _change_violations(changes: Changes, time_zones: frozenset[str], base_domain: str) -> Iterator[Violation]:
    if changes.display_name is not None:
        yield from name_violations(changes.display_name, "tenant.display_name")
    yield from regional_violations(
        locale=changes.locale,
        time_zone=changes.time_zone,
        currency_code=changes.currency_code,
        time_zones=time_zones,
    )
    if changes.host_names:
        yield from hosts.host_violations(changes.host_names, base_domain, "tenant.host_names")


def excesses(
    tenant: Tenant, changes: Changes, parent: Tenant | None, *, by_platform: bool
) -> Iterator[Violation]:
    """What of `changes`, taken together, this tenant cannot have.

    Only who sets its tier learns the parent's by that.
    """
    tier = changes.tier if by_platform else None
    if tier is not None and parent is not None and tier.rank > parent.active_tier.rank:
        yield Violation("tenant.tier", "TIER_EXCEEDS_PARENT", f"The parent's tier is {parent.active_tier}.")
    entitled = entitlements.effective(
        lower_tier(tier or tenant.tier, parent),
        tenant.overrides,
        None if parent is None else parent.entitlements,
    )
    if changes.host_names and not entitled["custom_host_names"]:
        yield Violation(
            "tenant.host_names", "HOST_NAMES_NOT_ENTITLED", "The tier has no host names of its own."
        )


def forbidden_changes(tenant: Tenant, changes: Changes, *, by_platform: bool) -> str | None:
    """Why this actor may not make `changes`: a stable reason, or None.

    The tier is what the provider sells; access by the provider is what the tenant grants: each may widen only
    its own. What a tenant begins with, the one who creates it states: that is what its contract says.
    """
    if changes.tier is not None and changes.tier is not tenant.tier and not by_platform:
        return "TIER_SET_BY_PROVIDER"
    access = changes.provider_access
    if access is not None and access.rank > tenant.provider_access.rank and by_platform:
        return "PROVIDER_ACCESS_GRANTED_BY_TENANT"
    return None


def updated(tenant: Tenant, changes: Changes, parent: Tenant | None, now: datetime) -> Tenant:
    """`tenant` with sound and permitted `changes`."""
    hosts_now = tenant.host_names
    if changes.host_names is not None:
        hosts_now = tuple(host for name in changes.host_names if (host := hosts.ascii_host(name)))
    changed = replace(
        _alive(tenant),
        display_name=tenant.display_name if changes.display_name is None else changes.display_name.strip(),
        locale=changes.locale or tenant.locale,
        time_zone=changes.time_zone or tenant.time_zone,
        currency_code=changes.currency_code or tenant.currency_code,
        tier=changes.tier or tenant.tier,
        provider_access=changes.provider_access or tenant.provider_access,
        host_names=hosts_now,
        updated_at=now,
    )
    return derive(changed, parent, now)


def with_module(
    tenant: Tenant, module: str, parent: Tenant | None, *, enabled: bool, now: datetime
) -> Tenant:
    """`tenant` with `module`, a known one, switched on or off.

    Raises:
        NotAllowedNowError: as `modules.switched`.
    """
    own = modules.switched(
        _alive(tenant).modules,
        module,
        enabled=enabled,
        parent_active=None if parent is None else parent.active_modules,
    )
    return derive(replace(tenant, modules=own, updated_at=now), parent, now)


def with_entitlement(
    tenant: Tenant, key: str, value: int | None, parent: Tenant | None, now: datetime
) -> Tenant:
    """`tenant` with the sound override `value` for `key`, or without one."""
    others = {name: held for name, held in _alive(tenant).overrides.items() if name != key}
    overrides = others if value is None else {**others, key: value}
    return derive(replace(tenant, overrides=overrides, updated_at=now), parent, now)


def entitlement_violations(key: str, value: int | None, parent: Tenant | None) -> tuple[Violation, ...]:
    """What is wrong with setting `key` to `value` (None: back to the tier's default)."""
    if key not in entitlements.KINDS:
        return (Violation("name", "ENTITLEMENT_UNKNOWN", f"There is no entitlement {key!r}."),)
    overrides = {} if value is None else {key: value}
    return entitlements.override_violations(
        overrides, None if parent is None else parent.entitlements, "value"
    )


def _alive(tenant: Tenant) -> Tenant:
    if tenant.phase in {TenantState.DELETING, TenantState.DELETED}:
        raise NotAllowedNowError("TENANT_STATE", f"The tenant is {tenant.phase}.")
    return tenant
