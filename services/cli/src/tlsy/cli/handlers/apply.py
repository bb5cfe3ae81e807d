"""tlsy apply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tlsy.cli.domain import manifests
from tlsy.cli.domain.errors import RefusedError
from tlsy.cli.domain.names import slug
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.paging import paged
from tlsy.cli.handlers.tenants import finished
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS: Final = (
    Column("KIND", "kind"),
    Column("NAME", "name"),
    Column("DONE", "done"),
    Column("WHAT", "what", fold=True),
)
_ALL: Final = 1_000_000
#: What to do where a document does not hold.
_NEXT: Final[Mapping[str, str]] = {
    "REFUSED": "Put back what the documents had, or make the change by its own command.",
    "FAILED": "Remove the cause of what failed, and take it up again: tlsy tenants resume",
}


@command("apply")
async def apply(
    terminal: Terminal,
    *,
    file: Annotated[
        list[Path], typer.Option("--filename", "-f", help="YAML file or directory; - is standard input.")
    ],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="More of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")] = False,
) -> None:
    """Make countries and tenants as the documents say: create what is missing, update what differs.

    What a document leaves out stays as it is. Applying twice does nothing the second time.
    """
    documents = manifests.read(
        document for path in (*file, *(more or ())) for document in terminal.files.documents(path)
    )
    work = _Apply(terminal, dry_run=dry_run)
    results = [*await work.countries(documents.countries), *await work.tenants(documents.tenants)]
    terminal.output.items(results, _COLUMNS)
    wrong = [f"{r['kind']} {r['name']}: {r['what']}" for r in results if r["done"] in _NEXT]
    if wrong:
        raise RefusedError(
            f"{len(wrong)} of {len(results)} documents do not hold.",
            " ".join(step for done, step in _NEXT.items() if done in {r["done"] for r in results}),
            wrong,
        )


class _Apply:
    """One run of apply; each document gives one result: kind, name, done, what."""

    def __init__(self, terminal: Terminal, *, dry_run: bool) -> None:
        self._terminal = terminal
        self._dry_run = dry_run
        self._only_in_documents: set[str] = set()

    async def countries(self, wanted: tuple[tenant_pb2.Country, ...]) -> list[dict[str, Any]]:
        """Creates those that are missing and updates those that differ."""
        if not wanted:
            return []
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.ListCountriesRequest()
        listed = await paged(registry.ListCountries, request, "countries", _ALL, self._terminal.output)
        found = {country.name: country for country in listed}
        return [
            await self._update_country(country, found[country.name])
            if country.name in found
            else await self._create_country(country)
            for country in wanted
        ]

    async def _create_country(self, country: tenant_pb2.Country) -> dict[str, Any]:
        if self._dry_run:
            self._only_in_documents.add(country.name)
        else:
            registry = await self._terminal.session.registry()
            await registry.CreateCountry(tenant_registry_pb2.CreateCountryRequest(country=country))
        return self._result("Country", country.name, "CREATED", "")

    async def _update_country(self, wanted: tenant_pb2.Country, found: tenant_pb2.Country) -> dict[str, Any]:
        mask = manifests.country_changes(wanted, found)
        if mask and not self._dry_run:
            request = tenant_registry_pb2.UpdateCountryRequest(country=wanted)
            request.country.etag = found.etag
            request.update_mask.paths.extend(mask)
            registry = await self._terminal.session.registry()
            await registry.UpdateCountry(request)
        return self._result("Country", wanted.name, "UPDATED" if mask else "UNCHANGED", ", ".join(mask))

    async def tenants(self, wanted: tuple[tenant_pb2.Tenant, ...]) -> list[dict[str, Any]]:
        """Creates and updates in the order given."""
        if not wanted:
            return []
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.ListTenantsRequest()
        listed = await paged(registry.ListTenants, request, "tenants", _ALL, self._terminal.output)
        found = {tenant.name: tenant for tenant in listed}
        results = []
        for number, tenant in enumerate(wanted, 1):
            self._terminal.output.progress(f"{number}/{len(wanted)} {slug(tenant.name)}")
            if tenant.name in found:
                results.append(await self._update(tenant, found[tenant.name]))
            else:
                results.append(await self._create(tenant))
        return results

    async def _create(self, tenant: tenant_pb2.Tenant) -> dict[str, Any]:
        # In a dry run the server would miss a country or a parent that these documents themselves make.
        if not {tenant.country, tenant.parent} & self._only_in_documents:
            registry = await self._terminal.session.registry()
            operation = await registry.CreateTenant(
                tenant_registry_pb2.CreateTenantRequest(
                    tenant_slug=slug(tenant.name), tenant=tenant, validate_only=self._dry_run
                )
            )
            await finished(self._terminal, operation)
        if self._dry_run:
            self._only_in_documents.add(tenant.name)
        return self._result("Tenant", tenant.name, "CREATED", "")

    async def _update(self, wanted: tenant_pb2.Tenant, found: tenant_pb2.Tenant) -> dict[str, Any]:
        changes = manifests.changes(wanted, found)
        if changes.fixed:
            what = f"cannot be changed: {', '.join(changes.fixed)}"
            return self._result("Tenant", wanted.name, "REFUSED", what)
        if found.state == tenant_pb2.TENANT_STATE_DELETING:
            return self._result("Tenant", wanted.name, "REFUSED", "is being deleted")
        if changes and not self._dry_run:
            await self._make(wanted, found, changes)
        found = await self._until_ready(found)
        if found.state == tenant_pb2.TENANT_STATE_FAILED:
            return self._result("Tenant", wanted.name, "FAILED", found.state_reason)
        switched = [f"{'+' if on else '-'}{module}" for module, on in changes.modules]
        what = ", ".join([*changes.mask, *switched, *sorted(changes.entitlements)])
        return self._result("Tenant", wanted.name, "UPDATED" if changes else "UNCHANGED", what)

    async def _make(
        self, wanted: tenant_pb2.Tenant, found: tenant_pb2.Tenant, changes: manifests.TenantChanges
    ) -> None:
        registry = await self._terminal.session.registry()
        if changes.mask:
            request = tenant_registry_pb2.UpdateTenantRequest(tenant=wanted)
            request.tenant.etag = found.etag
            request.update_mask.paths.extend(changes.mask)
            await registry.UpdateTenant(request)
        if changes.modules:
            listing = tenant_registry_pb2.ListModulesRequest(parent=wanted.name)
            modules = (await registry.ListModules(listing)).modules
            requires = {module.name.rsplit("/", 1)[-1]: tuple(module.requires) for module in modules}
            for module, on in manifests.module_order(changes.modules, requires):
                name = f"{wanted.name}/modules/{module}"
                await registry.SetModule(tenant_registry_pb2.SetModuleRequest(name=name, enabled=on))
        for key, value in changes.entitlements.items():
            name = f"{wanted.name}/entitlements/{key}"
            await registry.SetEntitlement(tenant_registry_pb2.SetEntitlementRequest(name=name, value=value))

    async def _until_ready(self, found: tenant_pb2.Tenant) -> tenant_pb2.Tenant:
        """The tenant, once what an earlier run began to make of it is made, or has failed."""
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.GetTenantRequest(name=found.name)
        while found.state == tenant_pb2.TENANT_STATE_PROVISIONING and not self._dry_run:
            await self._terminal.clock.sleep(0.5)
            found = await registry.GetTenant(request)
        return found

    def _result(self, kind: str, name: str, done: str, what: str) -> dict[str, Any]:
        return {"kind": kind, "name": name, "done": done, "what": what, "dryRun": self._dry_run}
