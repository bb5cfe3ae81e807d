"""Between messages and the catalogue's values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as AnyMessage

from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2
from tlsy.rpc.errors import Internal, InvalidArgument, NotFound, Violation, collected
from tlsy.rpc.etags import etag_of
from tlsy.rpc.masks import masked_fields
from tlsy.rpc.resource_names import TENANT, NamePattern
from tlsy.tenancy.context import IsolationMode, TenantState
from tlsy.tenant_registry.domain.changes import Changes
from tlsy.tenant_registry.domain.codes import is_country
from tlsy.tenant_registry.domain.entitlements import KINDS
from tlsy.tenant_registry.domain.kinds import ClusterKind, ProviderAccess, SectorProfile, Tier
from tlsy.tenant_registry.domain.modules import REQUIRES
from tlsy.tenant_registry.domain.operation import Outcome
from tlsy.tenant_registry.domain.placement import Cluster, Country, is_cluster_id
from tlsy.tenant_registry.domain.registration import Draft
from tlsy.tenant_registry.domain.slug import may_be_slug
from tlsy.tenant_registry.ports import TenantFilter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from enum import StrEnum

    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.tenant import Tenant

E = TypeVar("E", bound="StrEnum")

MODULE: Final = NamePattern("tenants/{tenant}/modules/{module}")
ENTITLEMENT: Final = NamePattern("tenants/{tenant}/entitlements/{entitlement}")
_OPERATION: Final = NamePattern("operations/{operation}")
_COUNTRY: Final = NamePattern("countries/{country}")
_CLUSTER: Final = NamePattern("clusters/{cluster}")
_TENANT_FIELDS: Final = frozenset(
    {"display_name", "locale", "time_zone", "currency_code", "tier", "provider_access", "host_names"}
)
_COUNTRY_FIELDS: Final = frozenset({"display_name", "allowed_cluster_countries"})
_CLUSTER_FIELDS: Final = frozenset({"max_tenants", "cordoned"})


def slug_in(name: str, field: str = "name") -> str:
    """The slug in "tenants/{slug}". Raises InvalidArgument."""
    return TENANT.parse(name, field=field)["tenant"]


def operation_id_in(name: str) -> UUID:
    """The id in "operations/{id}". Raises InvalidArgument, NotFound."""
    try:
        return UUID(_OPERATION.parse(name)["operation"])
    except ValueError:
        raise NotFound("OPERATION_NOT_FOUND", "There is no such operation, or not any more.") from None


def draft_in(request: tenant_registry_pb2.CreateTenantRequest) -> Draft:
    """What is asked for, as it was sent: the domain tells everything that is wrong with it at once."""
    asked = request.tenant
    return Draft(
        slug=request.tenant_slug,
        display_name=asked.display_name,
        country=_tail(asked.country, "countries/"),
        parent_slug=_tail(asked.parent, "tenants/"),
        sector_profile=_member(SectorProfile, tenant_pb2.SectorProfile, asked.sector_profile),
        isolation_mode=_member(IsolationMode, tenant_pb2.IsolationMode, asked.isolation_mode),
        tier=_member(Tier, tenant_pb2.Tier, asked.tier),
        provider_access=_member(ProviderAccess, tenant_pb2.ProviderAccess, asked.provider_access),
        locale=asked.locale,
        time_zone=asked.time_zone,
        currency_code=asked.currency_code,
        host_names=tuple(asked.host_names),
        cluster_id=_tail(asked.cluster, "clusters/"),
        modules=frozenset(asked.modules),
        overrides=dict(asked.entitlement_overrides),
    )


def tenant_changes_in(
    request: tenant_registry_pb2.UpdateTenantRequest,
) -> tuple[str, Changes, Sequence[Violation]]:
    """Slug ("": the name is none), the fields that the mask names, and what is wrong with name and mask.

    An unspecified tier or access stays.
    """
    asked = request.tenant
    wrong: list[Violation] = []
    slug = collected(lambda: slug_in(asked.name, "tenant.name"), "", wrong)
    masked = masked_fields(request.update_mask, asked, _TENANT_FIELDS, wrong)

    def text(name: str) -> str | None:
        return str(getattr(asked, name)) if name in masked else None

    access = _member(ProviderAccess, tenant_pb2.ProviderAccess, asked.provider_access)
    changes = Changes(
        display_name=text("display_name"),
        locale=text("locale"),
        time_zone=text("time_zone"),
        currency_code=text("currency_code"),
        tier=_member(Tier, tenant_pb2.Tier, asked.tier) if "tier" in masked else None,
        provider_access=access if "provider_access" in masked else None,
        host_names=tuple(asked.host_names) if "host_names" in masked else None,
    )
    return slug, changes, wrong


def filter_in(asked: tenant_registry_pb2.TenantFilter, *, for_platform: bool) -> TenantFilter:
    """Which tenants are asked for. Raises InvalidArgument: FILTER_INVALID, FILTER_OF_PROVIDER."""
    if asked.cluster and not for_platform:
        text = "where a tenant's rows are is the platform's business"
        raise InvalidArgument(violations=[Violation("filter.cluster", "FILTER_OF_PROVIDER", text)])
    named = (
        ("country", is_country(_tail(asked.country, "countries/"))),
        ("parent", may_be_slug(_tail(asked.parent, "tenants/"))),
        ("cluster", is_cluster_id(_tail(asked.cluster, "clusters/"))),
    )
    wrong = [name for name, sound in named if getattr(asked, name) and not sound]
    if wrong:
        text = "nothing has such a name"
        raise InvalidArgument(
            violations=[Violation(f"filter.{name}", "FILTER_INVALID", text) for name in wrong]
        )
    states = (_member(TenantState, tenant_pb2.TenantState, state) for state in asked.states)
    modes = (_member(IsolationMode, tenant_pb2.IsolationMode, mode) for mode in asked.isolation_modes)
    return TenantFilter(
        country=_tail(asked.country, "countries/"),
        parent_slug=_tail(asked.parent, "tenants/"),
        states=frozenset(state for state in states if state is not None),
        isolation_modes=frozenset(mode for mode in modes if mode is not None),
        sector_profile=_member(SectorProfile, tenant_pb2.SectorProfile, asked.sector_profile),
        cluster_id=_tail(asked.cluster, "clusters/"),
    )


def country_in(asked: tenant_pb2.Country) -> Country:
    """A new country, as it was sent."""
    return Country(
        code=_tail(asked.name, "countries/"),
        display_name=asked.display_name,
        allowed_cluster_countries=frozenset(
            _tail(name, "countries/") for name in asked.allowed_cluster_countries
        ),
        version=1,
    )


def country_changes_in(
    request: tenant_registry_pb2.UpdateCountryRequest,
) -> tuple[str, str | None, frozenset[str] | None, Sequence[Violation]]:
    """Code, display_name, allowed_cluster_countries (None: stays), and what is wrong with name and mask."""
    wrong: list[Violation] = []
    code = collected(lambda: _part(_COUNTRY, request.country.name, "country"), "", wrong)
    masked = masked_fields(request.update_mask, request.country, _COUNTRY_FIELDS, wrong)
    asked = country_in(request.country)
    return (
        code,
        asked.display_name if "display_name" in masked else None,
        asked.allowed_cluster_countries if "allowed_cluster_countries" in masked else None,
        wrong,
    )


def cluster_in(asked: tenant_pb2.Cluster) -> Cluster:
    """A new cluster, as it was sent."""
    return Cluster(
        cluster_id=_tail(asked.name, "clusters/"),
        region=asked.region,
        country=_tail(asked.country, "countries/"),
        kind=_member(ClusterKind, tenant_pb2.ClusterKind, asked.kind) or ClusterKind.SHARED,
        secret_ref=asked.secret_ref,
        max_tenants=asked.max_tenants,
        cordoned=asked.cordoned,
        tenant_count=0,
        reachable=True,
    )


def cluster_changes_in(
    request: tenant_registry_pb2.UpdateClusterRequest,
) -> tuple[str, int | None, bool | None]:
    """Id, max_tenants and cordoned; None: stays. Raises InvalidArgument for name and mask together."""
    wrong: list[Violation] = []
    cluster_id = collected(lambda: _part(_CLUSTER, request.cluster.name, "cluster"), "", wrong)
    masked = masked_fields(request.update_mask, request.cluster, _CLUSTER_FIELDS, wrong)
    if wrong:
        raise InvalidArgument(violations=wrong)
    return (
        cluster_id,
        request.cluster.max_tenants if "max_tenants" in masked else None,
        request.cluster.cordoned if "cordoned" in masked else None,
    )


def tenant_out(tenant: Tenant, *, for_platform: bool) -> tenant_pb2.Tenant:
    """A tenant as callers see it; its placement is the platform's business."""
    told = tenant_pb2.Tenant(
        name=f"tenants/{tenant.slug}",
        tenant_id=str(tenant.tenant_id),
        display_name=tenant.display_name,
        country=f"countries/{tenant.country}",
        parent=f"tenants/{tenant.parent_slug}" if tenant.parent_slug else "",
        sector_profile=tenant_pb2.SectorProfile.Value(f"SECTOR_PROFILE_{tenant.sector_profile}"),
        isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{tenant.isolation_mode}"),
        state=tenant_pb2.TenantState.Value(f"TENANT_STATE_{tenant.state}"),
        epoch=tenant.epoch,
        locale=tenant.locale,
        time_zone=tenant.time_zone,
        currency_code=tenant.currency_code,
        tier=tenant_pb2.Tier.Value(f"TIER_{tenant.tier}"),
        active_tier=tenant_pb2.Tier.Value(f"TIER_{tenant.active_tier}"),
        provider_access=tenant_pb2.ProviderAccess.Value(f"PROVIDER_ACCESS_{tenant.provider_access}"),
        host_names=tenant.host_names,
        state_reason=tenant.state_reason,
        etag=tenant.etag,
        modules=sorted(tenant.modules),
        entitlement_overrides=dict(tenant.overrides),
    )
    told.create_time.FromDatetime(tenant.created_at)
    told.update_time.FromDatetime(tenant.updated_at)
    if for_platform:
        told.cluster = f"clusters/{tenant.requested_cluster}" if tenant.requested_cluster else ""
        told.placement.CopyFrom(
            tenant_pb2.Placement(cluster=tenant.cluster_id, database=tenant.database, schema=tenant.schema)
        )
    return told


def operation_out(
    operation: Operation, tenant: Tenant | None, domain: str, *, for_platform: bool
) -> operations_pb2.Operation:
    """An operation; with its tenant where it succeeded, with the reason as an error where it failed.

    Words about a failure name the placement, which is the platform's business: others get the reason alone.
    """
    metadata = tenant_registry_pb2.OperationMetadata(
        target=f"tenants/{operation.target_slug}",
        verb=operation.verb,
        steps=[
            tenant_registry_pb2.OperationStep(
                name=step.name,
                done=step.done,
                error=step.error if for_platform else step.error.partition(":")[0],
            )
            for step in operation.steps
        ],
        attempts=operation.attempts,
    )
    metadata.create_time.FromDatetime(operation.created_at)
    told = operations_pb2.Operation(
        name=f"operations/{operation.operation_id}",
        metadata=_packed(metadata),
        done=operation.outcome is not Outcome.RUNNING,
    )
    if operation.outcome is Outcome.FAILED:
        message = operation.message
        if not for_platform:
            message = f"It was given up ({operation.reason}); the platform can read why."
        told.error.CopyFrom(Internal(operation.reason, message).to_status(domain))
    if operation.outcome is Outcome.SUCCEEDED and tenant is not None:
        told.response.CopyFrom(_packed(tenant_out(tenant, for_platform=for_platform)))
    return told


def country_out(country: Country) -> tenant_pb2.Country:
    """A country with its residency policy."""
    return tenant_pb2.Country(
        name=f"countries/{country.code}",
        display_name=country.display_name,
        allowed_cluster_countries=sorted(f"countries/{code}" for code in country.allowed_cluster_countries),
        etag=etag_of(country.code, country.version),
    )


def cluster_out(cluster: Cluster) -> tenant_pb2.Cluster:
    """A cluster; no secret, only the name of it."""
    return tenant_pb2.Cluster(
        name=f"clusters/{cluster.cluster_id}",
        region=cluster.region,
        country=f"countries/{cluster.country}",
        kind=tenant_pb2.ClusterKind.Value(f"CLUSTER_KIND_{cluster.kind}"),
        secret_ref=cluster.secret_ref,
        max_tenants=cluster.max_tenants,
        cordoned=cluster.cordoned,
        tenant_count=cluster.tenant_count,
        etag=cluster.etag,
    )


def module_out(tenant: Tenant, module: str) -> tenant_pb2.Module:
    """One module and whether it is in effect."""
    return tenant_pb2.Module(
        name=MODULE.format(tenant=tenant.slug, module=module),
        enabled=module in tenant.active_modules,
        requires=sorted(REQUIRES[module]),
    )


def entitlement_out(tenant: Tenant, key: str) -> tenant_pb2.Entitlement:
    """One entitlement as it is in effect."""
    return tenant_pb2.Entitlement(
        name=ENTITLEMENT.format(tenant=tenant.slug, entitlement=key),
        value=tenant.entitlements[key],
        default_value=KINDS[key].defaults[tenant.active_tier],
        overridden=key in tenant.overrides,
        unit=KINDS[key].unit,
    )


def _packed(message: tenant_registry_pb2.OperationMetadata | tenant_pb2.Tenant) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _part(pattern: NamePattern, name: str, variable: str) -> str:
    """The id in the name of what an update is of. Raises InvalidArgument."""
    return pattern.parse(name, field=f"{variable}.name")[variable]


def _tail(name: str, prefix: str) -> str:
    """What follows the collection; of a name without it what nothing has as its id: the domain refuses it."""
    return name.removeprefix(prefix) if not name or name.startswith(prefix) else f"/{name}"


def _member(kind: type[E], told: _EnumTypeWrapper[Any], number: int) -> E | None:
    """The member that an enum's number stands for; None for unspecified and for those of later versions."""
    if number == 0 or number not in told.values():
        return None
    name = told.Name(number)
    return next((member for member in kind if name.endswith(f"_{member.value}")), None)
