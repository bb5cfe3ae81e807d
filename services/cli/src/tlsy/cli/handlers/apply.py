"""tlsy apply."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tlsy.cli.domain import manifests
from tlsy.cli.domain.errors import RefusedError
from tlsy.cli.domain.names import slug
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.paging import paged
from tlsy.cli.handlers.tenants import finished
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2

_COLUMNS: Final = (
    Column("KIND", "kind"),
    Column("NAME", "name"),
    Column("DONE", "done"),
    Column("WHAT", "what"),
)
_ALL: Final = 1_000_000


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
    refused = [f"{r['kind']} {r['name']}: {r['what']}" for r in results if r["done"] == "REFUSED"]
    if refused:
        raise RefusedError(
            f"{len(refused)} of {len(results)} documents ask for what cannot be changed.",
            "Put back what the documents had, or make the change by its own command.",
            refused,
        )


class _Apply:
    """One run of apply; each document gives one result: kind, name, done, what."""

    def __init__(self, terminal: Terminal, *, dry_run: bool) -> None:
        self._terminal = terminal
        self._dry_run = dry_run
        self._only_in_documents: set[str] = set()

    async def countries(self, wanted: tuple[tenant_pb2.Country, ...]) -> list[dict[str, Any]]:
        """Creates those that are missing; an existing one cannot be changed."""
        if not wanted:
            return []
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.ListCountriesRequest()
        listed = await paged(registry.ListCountries, request, "countries", _ALL, self._terminal.output)
        found = {country.name: country for country in listed}
        results = []
        for country in wanted:
            if country.name not in found:
                if self._dry_run:
                    self._only_in_documents.add(country.name)
                else:
                    await registry.CreateCountry(tenant_registry_pb2.CreateCountryRequest(country=country))
                results.append(self._result("Country", country.name, "CREATED", ""))
                continue
            different = manifests.country_differs(country, found[country.name])
            done = "REFUSED" if different else "UNCHANGED"
            what = f"cannot be changed: {', '.join(different)}" if different else ""
            results.append(self._result("Country", country.name, done, what))
        return results

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
        if not changes:
            await self._until_ready(found)
            return self._result("Tenant", wanted.name, "UNCHANGED", "")
        if not self._dry_run:
            await self._make(wanted, found, changes)
        switched = [f"{'+' if on else '-'}{module}" for module, on in changes.modules]
        what = ", ".join([*changes.mask, *switched, *sorted(changes.entitlements)])
        return self._result("Tenant", wanted.name, "UPDATED", what)

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

    async def _until_ready(self, found: tenant_pb2.Tenant) -> None:
        """Waits for a tenant that an earlier run began to make."""
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.GetTenantRequest(name=found.name)
        while found.state == tenant_pb2.TENANT_STATE_PROVISIONING and not self._dry_run:
            await self._terminal.clock.sleep(0.5)
            found = await registry.GetTenant(request)

    def _result(self, kind: str, name: str, done: str, what: str) -> dict[str, Any]:
        return {"kind": kind, "name": name, "done": done, "what": what, "dryRun": self._dry_run}
