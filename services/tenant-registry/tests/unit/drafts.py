"""A draft and its surroundings that are sound, to be spoiled one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from tlsy.runtime.ids import TenantId
from tlsy.tenant_registry.domain.kinds import ClusterKind
from tlsy.tenant_registry.domain.placement import Cluster, Country
from tlsy.tenant_registry.domain.registration import Draft, Surroundings, register
from tlsy.tenant_registry.domain.tenant import Tenant, activated

NOW = datetime(2026, 1, 1, tzinfo=UTC)

FR = Country(code="fr", display_name="France", allowed_cluster_countries=frozenset({"fr", "be"}))
BE = Country(code="be", display_name="Belgique", allowed_cluster_countries=frozenset())

PARIS = Cluster(
    cluster_id="paris",
    region="eu-west",
    country="fr",
    kind=ClusterKind.SHARED,
    secret_ref="paris",
    max_tenants=0,
    cordoned=False,
    tenant_count=0,
    reachable=True,
)


def draft(**changes: Any) -> Draft:
    return replace(Draft(slug="acme", display_name="Acme", country="fr", overrides={}), **changes)


def around(*, parent: Tenant | None = None, below: int = 0, **changes: Any) -> Surroundings:
    sound = Surroundings(
        country=FR,
        line=() if parent is None else (parent,),
        below=() if parent is None else (below,),
        clusters=(PARIS,),
        time_zones=frozenset({"Etc/UTC", "Europe/Paris"}),
        base_domain="tlsy.example",
        by_platform=True,
    )
    return replace(sound, **changes)


def tenant(number: int = 1, *, parent: Tenant | None = None, **changes: Any) -> Tenant:
    """An ACTIVE tenant, below `parent`."""
    asked = draft(slug=f"acme-{number}", parent_slug="" if parent is None else parent.slug, **changes)
    made = register(
        asked,
        around(parent=parent),
        tenant_id=TenantId(UUID(int=number)),
        now=NOW,
        shared_database="tlsy_tenants",
    )
    return activated(made, parent, NOW)
