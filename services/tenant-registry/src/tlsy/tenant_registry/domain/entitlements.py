"""Entitlements: per-tenant limits and flags, their default by tier, overrides, and the parent's bound."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tlsy.tenant_registry.domain.errors import Violation
from tlsy.tenant_registry.domain.kinds import Tier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAX_INT64: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitlementKind:
    """One parameter of the product.

    Attributes:
        unit: what the value counts; empty for a flag, whose value is 0 or 1.
        defaults: value per tier.
        least: smallest override.
        most: largest override.
    """

    unit: str
    defaults: Mapping[Tier, int]
    least: int = 0
    most: int = _MAX_INT64


def _kind(
    unit: str, starter: int, business: int, enterprise: int, *, least: int = 0, most: int = _MAX_INT64
) -> EntitlementKind:
    return EntitlementKind(
        unit=unit,
        defaults=MappingProxyType(
            {Tier.STARTER: starter, Tier.BUSINESS: business, Tier.ENTERPRISE: enterprise}
        ),
        least=least,
        most=most,
    )


_GIB: Final = 2**30

#: Partitions of events are dropped behind it, whoever the rows are of; the `keep_days` of every such table.
MAX_RETENTION_DAYS: Final = 400

#: Key to kind, of all entitlements that exist.
KINDS: Final[Mapping[str, EntitlementKind]] = MappingProxyType(
    {
        "events_per_month": _kind("events", 5_000_000, 100_000_000, 5_000_000_000),
        "events_hard_percent": _kind("percent", 110, 150, 200, least=100, most=1000),
        "events_grace_hours": _kind("hours", 24, 72, 168, most=744),
        "storage_bytes": _kind("bytes", 10 * _GIB, 500 * _GIB, 20_000 * _GIB),
        "export_bytes_per_month": _kind("bytes", _GIB, 50 * _GIB, 2_000 * _GIB),
        "requests_per_s": _kind("requests/s", 50, 500, 5_000, least=1),
        "ingest_events_per_s": _kind("events/s", 2_000, 20_000, 200_000, least=1),
        "retention_days": _kind("days", 30, 90, MAX_RETENTION_DAYS, least=1, most=MAX_RETENTION_DAYS),
        "api_keys": _kind("keys", 20, 500, 10_000),
        "users": _kind("users", 10, 250, 10_000, least=1),
        "rules": _kind("rules", 50, 500, 5_000),
        "sub_tenants": _kind("tenants", 2, 50, 500, most=1_000),
        "sites": _kind("sites", 5, 500, 10_000),
        "kafka_producers": _kind("", 0, 1, 1, most=1),
        "custom_host_names": _kind("", 0, 1, 1, most=1),
    }
)


def override_violations(
    overrides: Mapping[str, int], parent_effective: Mapping[str, int] | None, field: str
) -> tuple[Violation, ...]:
    """All that is wrong with `overrides` below a parent (None: at the top)."""
    return tuple(_override_violations(overrides, parent_effective, field))


def _override_violations(
    overrides: Mapping[str, int], parent_effective: Mapping[str, int] | None, field: str
) -> Iterator[Violation]:
    for key, value in sorted(overrides.items()):
        path = f"{field}[{key}]"
        kind = KINDS.get(key)
        if kind is None:
            yield Violation(path, "ENTITLEMENT_UNKNOWN", f"There is no entitlement {key!r}.")
            continue
        if not kind.least <= value <= kind.most:
            yield Violation(
                path, "ENTITLEMENT_OUT_OF_RANGE", f"{key} is from {kind.least} to {kind.most} {kind.unit}."
            )
        elif parent_effective is not None and value > parent_effective[key]:
            yield Violation(
                path, "ENTITLEMENT_EXCEEDS_PARENT", f"The parent has {key} = {parent_effective[key]}."
            )


def effective(
    tier: Tier, overrides: Mapping[str, int], parent_effective: Mapping[str, int] | None
) -> Mapping[str, int]:
    """The value of every entitlement: override, else tier default, never more than the parent's."""
    own = {key: overrides.get(key, kind.defaults[tier]) for key, kind in KINDS.items()}
    if parent_effective is not None:
        own = {key: min(value, parent_effective[key]) for key, value in own.items()}
    return MappingProxyType(own)
