"""Sector profiles: what a tenant gets where its administrator leaves a choice open."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tlsy.tenancy.context import IsolationMode
from tlsy.tenant_registry.domain.kinds import SectorProfile, Tier

if TYPE_CHECKING:
    from collections.abc import Mapping

_BASE_MODULES: Final = frozenset({"supervision", "expert-rules", "billing"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The choices of one profile.

    Attributes:
        own_country_only: a residency stricter than the country's policy: clusters abroad are never taken.
    """

    isolation_mode: IsolationMode
    tier: Tier
    modules: frozenset[str]
    own_country_only: bool


#: The presets of all profiles.
PRESETS: Final[Mapping[SectorProfile, Preset]] = MappingProxyType(
    {
        SectorProfile.SME: Preset(
            isolation_mode=IsolationMode.SHARED,
            tier=Tier.STARTER,
            modules=_BASE_MODULES | {"status-page"},
            own_country_only=False,
        ),
        SectorProfile.MULTISITE: Preset(
            isolation_mode=IsolationMode.SCHEMA,
            tier=Tier.BUSINESS,
            modules=_BASE_MODULES | {"reporting", "status-page"},
            own_country_only=False,
        ),
        SectorProfile.FINTECH: Preset(
            isolation_mode=IsolationMode.DEDICATED,
            tier=Tier.ENTERPRISE,
            modules=_BASE_MODULES | {"reporting", "audit-export"},
            own_country_only=False,
        ),
        SectorProfile.GOVERNMENT: Preset(
            isolation_mode=IsolationMode.DEDICATED,
            tier=Tier.ENTERPRISE,
            modules=_BASE_MODULES | {"reporting", "audit-export", "enterprise-sso"},
            own_country_only=True,
        ),
    }
)
