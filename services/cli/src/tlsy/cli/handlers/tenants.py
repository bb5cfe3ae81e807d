"""tlsy tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from google.longrunning import operations_pb2

from tlsy.cli.domain.errors import RefusedError, UsageError
from tlsy.cli.domain.manifests import enum_names, enum_value
from tlsy.cli.domain.names import cluster_name, country_name, slug, tenant_name
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import one_of
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor

COLUMNS: Final = (
    Column("NAME", "name", last=1),
    Column("COUNTRY", "country", last=1, spare=4),
    Column("PARENT", "parent", last=1, spare=1),
    Column("PROFILE", "sectorProfile", spare=6),
    Column("ISOLATION", "isolationMode", spare=3),
    Column("TIER", "tier", spare=5),
    Column("STATE", "state"),
    Column("DISPLAY NAME", "displayName", fold=True, spare=2),
)
_WAIT_TIMEOUT_S: Final = 35.0

Slug = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's slug.")]
NewSlug = Annotated[str, typer.Argument(metavar="NEW_TENANT", help="Its slug.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is done.")]


@command("list")
async def list_tenants(
    terminal: Terminal,
    *,
    country: Annotated[str, typer.Option(help="Only of this country.")] = "",
    parent: Annotated[str, typer.Option(metavar="TENANT", help="Only below this tenant.")] = "",
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only in these states, e.g. ACTIVE.",
            autocompletion=one_of(tenant_pb2.TenantState.DESCRIPTOR),
        ),
    ] = None,
    isolation: Annotated[
        list[str] | None,
        typer.Option(
            help="SHARED, SCHEMA, DEDICATED.", autocompletion=one_of(tenant_pb2.IsolationMode.DESCRIPTOR)
        ),
    ] = None,
    limit: Limit = 1000,
) -> None:
    """All tenants, for the platform; its sub-tenants, for a tenant."""
    registry = await terminal.session.registry()
    wanted = tenant_registry_pb2.TenantFilter(
        country=country_name(country) if country else "",
        parent=tenant_name(parent) if parent else "",
    )
    wanted.states.extend(chosen(tenant_pb2.TenantState.DESCRIPTOR, text) for text in state or ())
    wanted.isolation_modes.extend(
        chosen(tenant_pb2.IsolationMode.DESCRIPTOR, text) for text in isolation or ()
    )
    request = tenant_registry_pb2.ListTenantsRequest(filter=wanted)
    tenants = await paged(registry.ListTenants, request, "tenants", limit, terminal.output)
    terminal.output.items(tenants, COLUMNS)


@command("get")
async def get_tenant(terminal: Terminal, tenant: Slug) -> None:
    """One tenant."""
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.GetTenantRequest(name=tenant_name(tenant))
    terminal.output.item(await registry.GetTenant(request))


@command("create")
async def create_tenant(
    terminal: Terminal,
    tenant: NewSlug,
    *,
    display_name: Annotated[str, typer.Option(help="For people.")],
    country: Annotated[str, typer.Option(help="ISO 3166-1, e.g. fr.")],
    parent: Annotated[
        str, typer.Option(metavar="TENANT", help="The tenant that it is a subsidiary of.")
    ] = "",
    profile: Annotated[
        str,
        typer.Option(
            help="sme, government, fintech, multisite.",
            autocompletion=one_of(tenant_pb2.SectorProfile.DESCRIPTOR),
        ),
    ] = "",
    isolation: Annotated[
        str,
        typer.Option(
            help="SHARED, SCHEMA, DEDICATED; default: the profile's.",
            autocompletion=one_of(tenant_pb2.IsolationMode.DESCRIPTOR),
        ),
    ] = "",
    tier: Annotated[
        str,
        typer.Option(
            help="starter, business, enterprise.", autocompletion=one_of(tenant_pb2.Tier.DESCRIPTOR)
        ),
    ] = "",
    cluster: Annotated[
        str, typer.Option(metavar="CLUSTER", help="Default: the country's policy decides.")
    ] = "",
    locale: Annotated[str, typer.Option(help="BCP 47, e.g. fr-FR.")] = "",
    time_zone: Annotated[str, typer.Option(help="IANA, e.g. Europe/Paris.")] = "",
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "",
    provider_access: Annotated[
        str,
        typer.Option(
            help="NONE, ONBOARDING, FULL.", autocompletion=one_of(tenant_pb2.ProviderAccess.DESCRIPTOR)
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, create nothing.")] = False,
    wait: Wait = True,
) -> None:
    """Provision a tenant."""
    wanted = tenant_pb2.Tenant(
        display_name=display_name,
        country=country_name(country),
        parent=tenant_name(parent) if parent else "",
        sector_profile=chosen(tenant_pb2.SectorProfile.DESCRIPTOR, profile),
        isolation_mode=chosen(tenant_pb2.IsolationMode.DESCRIPTOR, isolation),
        tier=chosen(tenant_pb2.Tier.DESCRIPTOR, tier),
        cluster=cluster_name(cluster) if cluster else "",
        locale=locale,
        time_zone=time_zone,
        currency_code=currency,
        provider_access=chosen(tenant_pb2.ProviderAccess.DESCRIPTOR, provider_access),
    )
    registry = await terminal.session.registry()
    operation = await registry.CreateTenant(
        tenant_registry_pb2.CreateTenantRequest(
            tenant_slug=slug(tenant), tenant=wanted, validate_only=dry_run
        )
    )
    if wait:
        operation = await finished(terminal, operation)
    terminal.output.item(result_of(operation) if operation.done else operation)


@command("update")
async def update_tenant(
    terminal: Terminal,
    tenant: Slug,
    *,
    display_name: Annotated[str | None, typer.Option(help="For people.")] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            help="starter, business, enterprise.", autocompletion=one_of(tenant_pb2.Tier.DESCRIPTOR)
        ),
    ] = None,
    locale: Annotated[str | None, typer.Option(help="BCP 47.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="IANA.")] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217.")] = None,
    provider_access: Annotated[
        str | None,
        typer.Option(
            help="NONE, ONBOARDING, FULL.", autocompletion=one_of(tenant_pb2.ProviderAccess.DESCRIPTOR)
        ),
    ] = None,
    host_name: Annotated[list[str] | None, typer.Option(help="All of them, once each.")] = None,
) -> None:
    """Change what is given; the rest stays."""
    given: dict[str, Any] = {
        "display_name": display_name,
        "tier": None if tier is None else chosen(tenant_pb2.Tier.DESCRIPTOR, tier),
        "locale": locale,
        "time_zone": time_zone,
        "currency_code": currency,
        "provider_access": (
            None if provider_access is None else chosen(tenant_pb2.ProviderAccess.DESCRIPTOR, provider_access)
        ),
        "host_names": host_name,
    }
    given = {field: value for field, value in given.items() if value is not None}
    if not given:
        raise UsageError("Nothing to change was given.", "See tlsy tenants update --help.")
    request = tenant_registry_pb2.UpdateTenantRequest(
        tenant=tenant_pb2.Tenant(name=tenant_name(tenant), **given)
    )
    request.update_mask.paths.extend(sorted(given))
    registry = await terminal.session.registry()
    terminal.output.item(await registry.UpdateTenant(request))


@command("suspend")
async def suspend_tenant(
    terminal: Terminal, tenant: Slug, *, why: Annotated[str, typer.Option(help="Kept with the tenant.")]
) -> None:
    """Refuse writes of a tenant and of all below it; what is read stays readable."""
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.SuspendTenantRequest(name=tenant_name(tenant), reason=why)
    terminal.output.item(await registry.SuspendTenant(request))


@command("resume")
async def resume_tenant(terminal: Terminal, tenant: Slug) -> None:
    """Take writes of a suspended tenant again, or take up a provisioning that failed."""
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.ResumeTenantRequest(name=tenant_name(tenant))
    terminal.output.item(await registry.ResumeTenant(request))


@command("delete")
async def delete_tenant(
    terminal: Terminal,
    tenant: Slug,
    *,
    confirm: Annotated[str, typer.Option(help="The slug once more.")],
    erase_now: Annotated[
        bool, typer.Option("--erase-now", help="Do not wait for the retention time.")
    ] = False,
    wait: Wait = False,
) -> None:
    """Suspend a tenant, and erase it after the retention time."""
    if slug(confirm) != slug(tenant):
        raise UsageError("--confirm is not the tenant's slug.", f"Repeat it: --confirm {slug(tenant)}")
    registry = await terminal.session.registry()
    operation = await registry.DeleteTenant(
        tenant_registry_pb2.DeleteTenantRequest(name=tenant_name(tenant), skip_retention=erase_now)
    )
    if wait:
        operation = await finished(terminal, operation)
    terminal.output.item(operation)


@command("wait")
async def wait_operation(
    terminal: Terminal, operation: Annotated[str, typer.Argument(help="As create or delete named it.")]
) -> None:
    """Return when an operation is done."""
    name = operation if operation.startswith("operations/") else f"operations/{operation}"
    terminal.output.item(await finished(terminal, operations_pb2.Operation(name=name)))


async def finished(terminal: Terminal, operation: operations_pb2.Operation) -> operations_pb2.Operation:
    """Waits until an operation is done, and tells its steps meanwhile.

    Raises:
        RefusedError: it failed.
    """
    registry = await terminal.session.registry()
    state = tenant_registry_pb2.OperationMetadata()
    while not operation.done:
        operation = await registry.WaitOperation(
            tenant_registry_pb2.WaitOperationRequest(name=operation.name), timeout=_WAIT_TIMEOUT_S
        )
        if operation.metadata.Unpack(state):
            terminal.output.progress(_step_line(state))
    if operation.HasField("error"):
        again = "tlsy tenants resume" if state.verb == "create" else "tlsy tenants delete"
        raise RefusedError(
            f"{operation.name} failed: {operation.error.message}",
            f"Remove the cause, then: {again} {slug(state.target)}",
        )
    return operation


def result_of(operation: operations_pb2.Operation) -> tenant_pb2.Tenant:
    """The tenant that a finished creation made."""
    tenant = tenant_pb2.Tenant()
    operation.response.Unpack(tenant)
    return tenant


def chosen(kind: EnumDescriptor, text: str) -> Any:
    """The enum's number for what was typed; 0 for "".

    Raises:
        UsageError: it is none of the choices.
    """
    number = enum_value(kind, text) if text else 0
    if number is None:
        raise UsageError(f"{text!r} is not known.", f"Choose one of: {', '.join(enum_names(kind))}.")
    return number


def _step_line(state: tenant_registry_pb2.OperationMetadata) -> str:
    done = sum(step.done for step in state.steps)
    current = next((step for step in state.steps if not step.done), None)
    if current is None:
        return f"{slug(state.target)}: {done}/{len(state.steps)}"
    trouble = f" ({current.error})" if current.error else ""
    return f"{slug(state.target)}: {done}/{len(state.steps)} {current.name}{trouble}"
