"""tlsy entitlements."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tlsy.cli.domain.names import within
from tlsy.cli.handlers.command import command
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2

_COLUMNS: Final = (
    Column("KEY", "name", last=1),
    Column("VALUE", "value"),
    Column("DEFAULT", "defaultValue", spare=1),
    Column("OVERRIDDEN", "overridden", spare=2),
    Column("UNIT", "unit"),
)

Key = Annotated[str, typer.Argument(metavar="KEY", help="As listed.")]


@command("list")
async def list_entitlements(terminal: Terminal) -> None:
    """The tenant's limits and flags."""
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.ListEntitlementsRequest(parent=await terminal.session.tenant())
    terminal.output.items((await registry.ListEntitlements(request)).entitlements, _COLUMNS)


@command("set")
async def set_entitlement(
    terminal: Terminal, key: Key, value: Annotated[int, typer.Argument(help="A flag is 0 or 1.")]
) -> None:
    """Give one a value of its own."""
    await _set(terminal, key, value)


@command("unset")
async def unset_entitlement(terminal: Terminal, key: Key) -> None:
    """Back to the tier's default."""
    await _set(terminal, key, None)


async def _set(terminal: Terminal, key: str, value: int | None) -> None:
    registry = await terminal.session.registry()
    name = within(await terminal.session.tenant(), "entitlements", key)
    request = tenant_registry_pb2.SetEntitlementRequest(name=name, value=value)
    terminal.output.item(await registry.SetEntitlement(request))
