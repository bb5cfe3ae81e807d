"""The closed sets of the catalogue; those that every service knows are in `tlsy.tenancy.context`."""

from __future__ import annotations

from enum import StrEnum


class SectorProfile(StrEnum):
    """Presets for what an administrator leaves open."""

    SME = "SME"
    GOVERNMENT = "GOVERNMENT"
    FINTECH = "FINTECH"
    MULTISITE = "MULTISITE"


class Tier(StrEnum):
    """Sets the default of every entitlement."""

    STARTER = "STARTER"
    BUSINESS = "BUSINESS"
    ENTERPRISE = "ENTERPRISE"

    @property
    def rank(self) -> int:
        """Order of the tiers: a sub-tenant's is never above its parent's."""
        return list(Tier).index(self)


class ProviderAccess(StrEnum):
    """What the provider's administrators may do in a tenant."""

    NONE = "NONE"
    ONBOARDING = "ONBOARDING"
    FULL = "FULL"

    @property
    def rank(self) -> int:
        """Order of widening: only the tenant itself raises it."""
        return list(ProviderAccess).index(self)


class ClusterKind(StrEnum):
    """Which tenants a cluster may hold."""

    SHARED = "SHARED"
    DEDICATED = "DEDICATED"


class Verb(StrEnum):
    """What a long-running operation does to its tenant."""

    CREATE = "create"
    DELETE = "delete"
    FENCE = "fence"
