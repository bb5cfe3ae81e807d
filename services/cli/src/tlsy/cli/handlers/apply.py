"""tlsy apply."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from grpc.aio import AioRpcError

from tlsy.cli.domain import manifests
from tlsy.cli.domain.errors import RefusedError
from tlsy.cli.domain.names import slug
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.paging import paged
from tlsy.cli.handlers.tenants import finished
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_COLUMNS: Final = (
    Column("KIND", "kind"),
    Column("NAME", "name"),
    Column("DONE", "done"),
    Column("WHAT", "what", fold=True),
)
_ALL: Final = 1_000_000
_PUT_BACK: Final = "Put back what the documents had, or make the change by its own command."
_RESUME: Final = "Remove the cause of what failed, and take it up again: tlsy tenants resume"


@command("apply")
async def apply(
    terminal: Terminal,
    *,
    file: Annotated[
        list[Path], typer.Option("--filename", "-f", help="YAML file or directory; - is standard input.")
    ],
    more: Annotated[list[Path] | None, typer.Argument(metavar="PATH", help="More of them.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")] = False,
) -> None:
    """Make countries and tenants as the documents say: create what is missing, update what differs.

    What a document leaves out stays as it is. Applying twice does nothing the second time.
    One that is refused keeps no other from being applied.
    """
    problems: list[str] = []
    found = (each for path in (*file, *(more or ())) for each in terminal.files.documents(path, problems))
    documents = manifests.read(found, problems)
    work = _Apply(terminal, dry_run=dry_run)
    try:
        await work.countries(documents.countries)
        await work.tenants(documents.tenants)
    except BaseException:
        # What was done is done, whatever ends it.
        if work.results:
            terminal.output.items(work.results, _COLUMNS)
        raise
    terminal.output.items(work.results, _COLUMNS)
    if work.wrong:
        raise RefusedError(
            f"{len(work.wrong)} of {len(work.results)} documents do not hold.",
            " ".join(dict.fromkeys(work.wrong.values())),
            list(work.wrong),
        )


class _Apply:
    """One run of apply. One document that is refused keeps no other from being applied.

    Attributes:
        results: of each document: kind, name, done, what.
        wrong: what is wrong with a document that does not hold, to what to do about it.
    """

    def __init__(self, terminal: Terminal, *, dry_run: bool) -> None:
        self._terminal = terminal
        self._dry_run = dry_run
        self._only_in_documents: set[str] = set()
        # Of the document at hand, what was changed so far.
        self._changed: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.wrong: dict[str, str] = {}

    async def countries(self, wanted: tuple[tenant_pb2.Country, ...]) -> None:
        """Creates those that are missing and updates those that differ."""
        if not wanted:
            return
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.ListCountriesRequest()
        listed = await paged(registry.ListCountries, request, "countries", _ALL, self._terminal.output)
        found = {country.name: country for country in listed}
        for country in wanted:
            async with self._told("Country", country.name):
                if country.name in found:
                    await self._update_country(country, found[country.name])
                else:
                    await self._create_country(country)

    async def _create_country(self, country: tenant_pb2.Country) -> None:
        if self._dry_run:
            self._only_in_documents.add(country.name)
        else:
            registry = await self._terminal.session.registry()
            await registry.CreateCountry(tenant_registry_pb2.CreateCountryRequest(country=country))
        self._result("Country", country.name, "CREATED", "")

    async def _update_country(self, wanted: tenant_pb2.Country, found: tenant_pb2.Country) -> None:
        mask = manifests.country_changes(wanted, found)
        if mask and not self._dry_run:
            request = tenant_registry_pb2.UpdateCountryRequest(country=wanted)
            request.country.etag = found.etag
            request.update_mask.paths.extend(mask)
            registry = await self._terminal.session.registry()
            await registry.UpdateCountry(request)
        self._result("Country", wanted.name, "UPDATED" if mask else "UNCHANGED", ", ".join(mask))

    async def tenants(self, wanted: tuple[tenant_pb2.Tenant, ...]) -> None:
        """Creates and updates in the order given."""
        if not wanted:
            return
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.ListTenantsRequest()
        listed = await paged(registry.ListTenants, request, "tenants", _ALL, self._terminal.output)
        found = {tenant.name: tenant for tenant in listed}
        for number, tenant in enumerate(wanted, 1):
            self._terminal.output.progress(f"{number}/{len(wanted)} {slug(tenant.name)}")
            async with self._told("Tenant", tenant.name):
                if tenant.name in found:
                    await self._update(tenant, found[tenant.name])
                else:
                    await self._create(tenant)

    async def _create(self, tenant: tenant_pb2.Tenant) -> None:
        # In a dry run the server would miss a country or a parent that these documents themselves make.
        if not {tenant.country, tenant.parent} & self._only_in_documents:
            registry = await self._terminal.session.registry()
            operation = await registry.CreateTenant(
                tenant_registry_pb2.CreateTenantRequest(
                    tenant_slug=slug(tenant.name), tenant=tenant, validate_only=self._dry_run
                )
            )
            try:
                await finished(self._terminal, operation)
            except RefusedError as failed:
                self._wrong("Tenant", tenant.name, "FAILED", failed)
                return
        if self._dry_run:
            self._only_in_documents.add(tenant.name)
        self._result("Tenant", tenant.name, "CREATED", "")

    async def _update(self, wanted: tenant_pb2.Tenant, found: tenant_pb2.Tenant) -> None:
        changes = manifests.changes(wanted, found)
        if changes.fixed:
            raise RefusedError(f"cannot be changed: {', '.join(changes.fixed)}", _PUT_BACK)
        if found.state == tenant_pb2.TENANT_STATE_DELETING:
            raise RefusedError("is being deleted", _PUT_BACK)
        if changes and not self._dry_run:
            await self._make(wanted, found, changes)
        found = await self._until_ready(found)
        if found.state == tenant_pb2.TENANT_STATE_FAILED:
            self._wrong("Tenant", wanted.name, "FAILED", RefusedError(found.state_reason, _RESUME))
            return
        switched = [_switched(module, on=on) for module, on in changes.modules]
        what = ", ".join([*changes.mask, *switched, *sorted(changes.entitlements)])
        self._result("Tenant", wanted.name, "UPDATED" if changes else "UNCHANGED", what)

    async def _make(
        self, wanted: tenant_pb2.Tenant, found: tenant_pb2.Tenant, changes: manifests.TenantChanges
    ) -> None:
        registry = await self._terminal.session.registry()
        if changes.mask:
            request = tenant_registry_pb2.UpdateTenantRequest(tenant=wanted)
            request.tenant.etag = found.etag
            request.update_mask.paths.extend(changes.mask)
            await registry.UpdateTenant(request)
            self._changed += changes.mask
        if changes.modules:
            listing = tenant_registry_pb2.ListModulesRequest(parent=wanted.name)
            modules = (await registry.ListModules(listing)).modules
            requires = {module.name.rsplit("/", 1)[-1]: tuple(module.requires) for module in modules}
            for module, on in manifests.module_order(changes.modules, requires):
                name = f"{wanted.name}/modules/{module}"
                await registry.SetModule(tenant_registry_pb2.SetModuleRequest(name=name, enabled=on))
                self._changed.append(_switched(module, on=on))
        for key, value in changes.entitlements.items():
            name = f"{wanted.name}/entitlements/{key}"
            await registry.SetEntitlement(tenant_registry_pb2.SetEntitlementRequest(name=name, value=value))
            self._changed.append(key)

    async def _until_ready(self, found: tenant_pb2.Tenant) -> tenant_pb2.Tenant:
        """The tenant, once what an earlier run began to make of it is made, or has failed."""
        registry = await self._terminal.session.registry()
        request = tenant_registry_pb2.GetTenantRequest(name=found.name)
        while found.state == tenant_pb2.TENANT_STATE_PROVISIONING and not self._dry_run:
            await self._terminal.clock.sleep(0.5)
            found = await registry.GetTenant(request)
        return found

    @asynccontextmanager
    async def _told(self, kind: str, name: str) -> AsyncIterator[None]:
        """A refusal within is this document's; what ends the whole run goes on."""
        self._changed = []
        try:
            yield
        except RefusedError as refused:
            self._wrong(kind, name, "REFUSED", refused)
        except AioRpcError as error:
            failure = self._terminal.session.failure(error)
            if not isinstance(failure, RefusedError):
                if self._changed:
                    self._result(kind, name, "UPDATED", ", ".join(self._changed))
                raise
            self._wrong(kind, name, "REFUSED", failure)

    def _wrong(self, kind: str, name: str, done: str, why: RefusedError) -> None:
        what = "; ".join([why.what, *why.details])
        if self._changed:
            what += f"; but changed: {', '.join(self._changed)}"
        self._result(kind, name, done, what)
        self.wrong[f"{kind} {name}: {what}"] = why.next_step

    def _result(self, kind: str, name: str, done: str, what: str) -> None:
        result = {"kind": kind, "name": name, "done": done, "what": what, "dryRun": self._dry_run}
        self.results.append(result)


def _switched(module: str, *, on: bool) -> str:
    return f"{'+' if on else '-'}{module}"
