"""From what an administrator asked for to a tenant: every problem at once, presets where a choice is open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tlsy.tenancy.context import DEDICATED_SCHEMA, SHARED_SCHEMA, IsolationMode, TenantState, tenant_schema
from tlsy.tenant_registry.domain import codes, entitlements, hosts, modules, placement
from tlsy.tenant_registry.domain.errors import NotAllowedNowError, Violation
from tlsy.tenant_registry.domain.kinds import ProviderAccess, SectorProfile, Tier
from tlsy.tenant_registry.domain.profiles import PRESETS
from tlsy.tenant_registry.domain.slug import slug_violations
from tlsy.tenant_registry.domain.tenant import MAX_DEPTH, Tenant, lower_tier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from tlsy.runtime.ids import TenantId

_MAX_DISPLAY_NAME: Final = 200
_DEFAULT_LOCALE: Final = "en"
_DEFAULT_TIME_ZONE: Final = "Etc/UTC"
_DEFAULT_CURRENCY: Final = "EUR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A tenant as asked for; empty and None mean: left open.

    Attributes:
        parent_slug: as asked for; empty at the top.
        cluster_id: as asked for; empty: the residency decides.
    """

    slug: str
    display_name: str
    country: str
    parent_slug: str = ""
    sector_profile: SectorProfile | None = None
    isolation_mode: IsolationMode | None = None
    tier: Tier | None = None
    provider_access: ProviderAccess | None = None
    locale: str = ""
    time_zone: str = ""
    currency_code: str = ""
    host_names: tuple[str, ...] = ()
    cluster_id: str = ""
    modules: frozenset[str] = frozenset()
    overrides: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the catalogue knows around a draft.

    Attributes:
        line: the tenant that the draft names as its parent, last, and its ancestors; empty at the top, and
            where there is no such tenant.
        below: how many tenants are below each of `line`.
        clusters: all of them.
        time_zones: IANA names that this machine knows.
        by_platform: whether the platform asks, and not a tenant for a sub-tenant of its own.
    """

    country: placement.Country | None
    line: tuple[Tenant, ...]
    below: tuple[int, ...]
    clusters: tuple[placement.Cluster, ...]
    time_zones: frozenset[str]
    base_domain: str
    by_platform: bool

    @property
    def parent(self) -> Tenant | None:
        """The parent, where there is one."""
        return self.line[-1] if self.line else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choices:
    """A draft after its open choices have been filled in."""

    sector_profile: SectorProfile
    isolation_mode: IsolationMode
    tier: Tier
    provider_access: ProviderAccess
    locale: str
    time_zone: str
    currency_code: str
    modules: frozenset[str]


def draft_violations(draft: Draft, around: Surroundings) -> tuple[Violation, ...]:
    """All that is wrong with `draft` itself."""
    return tuple(_draft_violations(draft, around))


def _draft_violations(draft: Draft, around: Surroundings) -> Iterator[Violation]:
    choices = _filled_in(draft, around.parent)
    parent = around.parent
    yield from slug_violations(draft.slug, "tenant_slug")
    yield from name_violations(draft.display_name, "tenant.display_name")
    yield from _parent_violations(draft, parent)
    yield from regional_violations(
        locale=choices.locale,
        time_zone=choices.time_zone,
        currency_code=choices.currency_code,
        time_zones=around.time_zones,
    )
    yield from modules.module_violations(
        choices.modules, None if parent is None else parent.active_modules, "tenant.modules"
    )
    yield from entitlements.override_violations(
        draft.overrides, None if parent is None else parent.entitlements, "tenant.entitlement_overrides"
    )
    yield from hosts.host_violations(draft.host_names, around.base_domain, "tenant.host_names")
    if draft.host_names and not _entitled(draft, choices, parent)["custom_host_names"]:
        yield Violation(
            "tenant.host_names", "HOST_NAMES_NOT_ENTITLED", "The tier has no host names of its own."
        )
    if parent is not None and choices.tier.rank > parent.active_tier.rank:
        yield Violation("tenant.tier", "TIER_EXCEEDS_PARENT", f"The parent's tier is {parent.active_tier}.")
    if not around.by_platform:
        yield from _own_violations(draft, choices, parent)
    yield from _residency_violations(draft, choices, around)


def name_violations(display_name: str, field: str) -> Iterator[Violation]:
    """What is wrong with a display name."""
    if not display_name.strip():
        yield Violation(field, "DISPLAY_NAME_EMPTY", "A tenant has a name for people.")
    if len(display_name) > _MAX_DISPLAY_NAME:
        yield Violation(field, "DISPLAY_NAME_TOO_LONG", f"It has at most {_MAX_DISPLAY_NAME} characters.")
    if not display_name.isprintable():
        yield Violation(field, "DISPLAY_NAME_CHARACTERS", "It has no control characters.")


def regional_violations(
    *, locale: str | None, time_zone: str | None, currency_code: str | None, time_zones: frozenset[str]
) -> Iterator[Violation]:
    """What is wrong with the regional settings of a tenant; None: stays as it is."""
    if locale is not None and not codes.is_locale(locale):
        yield Violation("tenant.locale", "LOCALE_INVALID", "A locale is like fr-FR (BCP 47).")
    if time_zone is not None and time_zone not in time_zones:
        yield Violation("tenant.time_zone", "TIME_ZONE_UNKNOWN", "A time zone is like Europe/Paris (IANA).")
    if currency_code is not None and not codes.is_currency(currency_code):
        yield Violation("tenant.currency_code", "CURRENCY_UNKNOWN", "A currency is like EUR (ISO 4217).")


def _parent_violations(draft: Draft, parent: Tenant | None) -> Iterator[Violation]:
    if not draft.parent_slug:
        return
    if draft.parent_slug == draft.slug:
        yield Violation("tenant.parent", "PARENT_CYCLE", "A tenant is not its own ancestor.")
    elif parent is None:
        yield Violation("tenant.parent", "PARENT_UNKNOWN", "There is no such tenant.")
    elif len(parent.ancestor_ids) + 2 > MAX_DEPTH:
        yield Violation(
            "tenant.parent", "HIERARCHY_TOO_DEEP", f"There are at most {MAX_DEPTH} levels of tenants."
        )


def _own_violations(draft: Draft, choices: _Choices, parent: Tenant | None) -> Iterator[Violation]:
    """What a tenant may not ask of the platform for its sub-tenants."""
    if draft.cluster_id:
        yield Violation("tenant.cluster", "CLUSTER_SET_BY_PROVIDER", "The platform chooses the cluster.")
    modes = list(IsolationMode)
    if parent is not None and modes.index(choices.isolation_mode) > modes.index(parent.isolation_mode):
        yield Violation(
            "tenant.isolation_mode", "ISOLATION_EXCEEDS_PARENT", f"The parent is {parent.isolation_mode}."
        )


def _residency_violations(draft: Draft, choices: _Choices, around: Surroundings) -> Iterator[Violation]:
    if not codes.is_country(draft.country):
        yield Violation("tenant.country", "COUNTRY_INVALID", "A country is like countries/fr (ISO 3166-1).")
        return
    if around.country is None:
        yield Violation("tenant.country", "COUNTRY_UNKNOWN", "This country is not in the catalogue.")
        return
    allowed = _residency(around, choices)
    if not allowed:
        yield Violation(
            "tenant.country", "RESIDENCY_CONFLICT", "No country is allowed by it and its ancestors."
        )
    elif draft.cluster_id:
        found = next((at for at in around.clusters if at.cluster_id == draft.cluster_id), None)
        yield from placement.requested_cluster_violations(
            found, choices.isolation_mode, allowed, "tenant.cluster"
        )


def register(
    draft: Draft, around: Surroundings, *, tenant_id: TenantId, now: datetime, shared_database: str
) -> Tenant:
    """The PROVISIONING tenant for a draft without violations.

    Args:
        draft: without violations in `around`.
        around: what the catalogue knows.
        tenant_id: never used before.
        now: UTC.
        shared_database: name of the common tenant database of every cluster.

    Raises:
        NotAllowedNowError: PARENT_NOT_ACTIVE, SUB_TENANT_LIMIT, or one of `choose_cluster`.
    """
    if around.country is None:
        raise AssertionError("a draft without violations has a known country")
    parent = around.parent
    if parent is not None and parent.state is not TenantState.ACTIVE:
        raise NotAllowedNowError("PARENT_NOT_ACTIVE", f"The parent is {parent.state}.")
    for ancestor, below in zip(around.line, around.below, strict=True):
        if below >= ancestor.entitlements["sub_tenants"]:
            # A tenant knows its parent's name, and not those of its other ancestors.
            full = ancestor.slug if around.by_platform or ancestor is parent else "A tenant above the parent"
            raise NotAllowedNowError("SUB_TENANT_LIMIT", f"{full} has as many sub-tenants as it may.")
    choices = _filled_in(draft, parent)
    allowed = _residency(around, choices)
    wanted = [at for at in around.clusters if draft.cluster_id in {"", at.cluster_id}]
    cluster = placement.choose_cluster(wanted, choices.isolation_mode, allowed, draft.country)
    database, schema = place(choices.isolation_mode, tenant_id, shared_database)
    return Tenant(
        tenant_id=tenant_id,
        slug=draft.slug,
        display_name=draft.display_name.strip(),
        country=draft.country,
        parent_id=None if parent is None else parent.tenant_id,
        parent_slug=draft.parent_slug,
        ancestor_ids=() if parent is None else (parent.tenant_id, *parent.ancestor_ids),
        sector_profile=choices.sector_profile,
        isolation_mode=choices.isolation_mode,
        tier=choices.tier,
        provider_access=choices.provider_access,
        locale=choices.locale,
        time_zone=choices.time_zone,
        currency_code=choices.currency_code,
        host_names=tuple(host for name in draft.host_names if (host := hosts.ascii_host(name))),
        residency=allowed,
        requested_cluster=draft.cluster_id,
        cluster_id=cluster.cluster_id,
        database=database,
        schema=schema,
        phase=TenantState.PROVISIONING,
        suspend_reason="",
        failure_reason="",
        state=TenantState.PROVISIONING,
        epoch=1,
        modules=choices.modules,
        active_modules=modules.active(choices.modules, None if parent is None else parent.active_modules),
        overrides=draft.overrides,
        entitlements=_entitled(draft, choices, parent),
        version=0,
        created_at=now,
        updated_at=now,
        erase_after=None,
        active_tier=lower_tier(choices.tier, parent),
        placed=False,
    )


def placed_anew(tenant: Tenant, clusters: Sequence[placement.Cluster]) -> Tenant:
    """A tenant of which nothing was made yet, on the cluster that would take it now; maybe the same.

    Raises:
        NotAllowedNowError: one of `choose_cluster`.
    """
    others = [
        # The room that it has already is its own to have again.
        replace(at, tenant_count=at.tenant_count - (at.cluster_id == tenant.cluster_id))
        for at in clusters
        if tenant.requested_cluster in {"", at.cluster_id}
    ]
    chosen = placement.choose_cluster(others, tenant.isolation_mode, tenant.residency, tenant.country)
    return replace(tenant, cluster_id=chosen.cluster_id)


def place(mode: IsolationMode, tenant_id: TenantId, shared_database: str) -> tuple[str, str]:
    """Database and schema of a tenant of `mode`."""
    match mode:
        case IsolationMode.SHARED:
            return shared_database, SHARED_SCHEMA
        case IsolationMode.SCHEMA:
            return shared_database, tenant_schema(tenant_id)
        case IsolationMode.DEDICATED:
            return tenant_schema(tenant_id), DEDICATED_SCHEMA


def with_residency(
    tenants: Sequence[Tenant], uppers: Mapping[TenantId, Tenant], countries: Mapping[str, placement.Country]
) -> tuple[Tenant, ...]:
    """Those of `tenants` whose residency is another by the policies of `countries`.

    Args:
        tenants: upper ones first.
        uppers: by id, their parents as far as they are not among them.
        countries: by code.
    """
    known = dict(uppers)
    changed: list[Tenant] = []
    for tenant in tenants:
        allowed = placement.residency(
            countries[tenant.country],
            None if tenant.parent_id is None else known[tenant.parent_id].residency,
            own_country_only=PRESETS[tenant.sector_profile].own_country_only,
        )
        known[tenant.tenant_id] = replace(tenant, residency=allowed)
        if allowed != tenant.residency:
            changed.append(known[tenant.tenant_id])
    return tuple(changed)


def _filled_in(draft: Draft, parent: Tenant | None) -> _Choices:
    profile = draft.sector_profile or (SectorProfile.SME if parent is None else parent.sector_profile)
    preset = PRESETS[profile]
    tier = draft.tier or preset.tier
    chosen = draft.modules or preset.modules
    if parent is not None and draft.tier is None:
        tier = lower_tier(tier, parent)
    if parent is not None and not draft.modules:
        chosen = modules.active(chosen, parent.active_modules)
    return _Choices(
        sector_profile=profile,
        isolation_mode=draft.isolation_mode or (preset if parent is None else parent).isolation_mode,
        tier=tier,
        provider_access=draft.provider_access or ProviderAccess.ONBOARDING,
        locale=draft.locale or (_DEFAULT_LOCALE if parent is None else parent.locale),
        time_zone=draft.time_zone or (_DEFAULT_TIME_ZONE if parent is None else parent.time_zone),
        currency_code=draft.currency_code or (_DEFAULT_CURRENCY if parent is None else parent.currency_code),
        modules=chosen,
    )


def _entitled(draft: Draft, choices: _Choices, parent: Tenant | None) -> Mapping[str, int]:
    return entitlements.effective(
        lower_tier(choices.tier, parent), draft.overrides, None if parent is None else parent.entitlements
    )


def _residency(around: Surroundings, choices: _Choices) -> frozenset[str]:
    if around.country is None:
        return frozenset()
    return placement.residency(
        around.country,
        None if around.parent is None else around.parent.residency,
        own_country_only=PRESETS[choices.sector_profile].own_country_only,
    )
