"""tlsy countries."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import country_name
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2

_COLUMNS: Final = (
    Column("NAME", "name", last=1),
    Column("DISPLAY NAME", "displayName", fold=True),
    Column("CLUSTERS ALLOWED IN", "allowedClusterCountries", last=1, fold=True),
)


@command("list")
async def list_countries(terminal: Terminal, *, limit: Limit = 1000) -> None:
    """Countries and where their tenants' rows may be."""
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.ListCountriesRequest()
    countries = await paged(registry.ListCountries, request, "countries", limit, terminal.output)
    terminal.output.items(countries, _COLUMNS)


@command("create")
async def create_country(
    terminal: Terminal,
    code: Annotated[str, typer.Argument(help="ISO 3166-1 alpha-2.")],
    *,
    display_name: Annotated[str, typer.Option(help="For people.")],
    allow: Annotated[
        list[str] | None, typer.Option(help="A country whose clusters may hold its tenants; repeat it.")
    ] = None,
) -> None:
    """Add a country; without --allow only its own clusters hold its tenants."""
    country = tenant_pb2.Country(
        name=country_name(code),
        display_name=display_name,
        allowed_cluster_countries=[country_name(other) for other in allow or ()],
    )
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.CreateCountryRequest(country=country)
    terminal.output.item(await registry.CreateCountry(request))


@command("update")
async def update_country(
    terminal: Terminal,
    code: Annotated[str, typer.Argument(help="ISO 3166-1 alpha-2.")],
    *,
    display_name: Annotated[str | None, typer.Option(help="For people.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A country whose clusters may hold its tenants; all of them, repeat it."),
    ] = None,
) -> None:
    """Change a country's name, or where its tenants may be; refused while one is elsewhere."""
    country = tenant_pb2.Country(name=country_name(code))
    request = tenant_registry_pb2.UpdateCountryRequest(country=country)
    if display_name is not None:
        request.country.display_name = display_name
        request.update_mask.paths.append("display_name")
    if allow:
        request.country.allowed_cluster_countries.extend(country_name(other) for other in allow)
        request.update_mask.paths.append("allowed_cluster_countries")
    if not request.update_mask.paths:
        raise UsageError("Nothing to change was given.", "Give --display-name or --allow.")
    registry = await terminal.session.registry()
    terminal.output.item(await registry.UpdateCountry(request))
