"""tlsy modules."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tlsy.cli.domain.names import within
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import modules
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2

_COLUMNS: Final = (
    Column("MODULE", "name", last=1),
    Column("ON", "enabled"),
    Column("REQUIRES", "requires", fold=True),
)

Id = Annotated[str, typer.Argument(metavar="MODULE", help="The module's id.", autocompletion=modules)]


@command("list")
async def list_modules(terminal: Terminal) -> None:
    """The tenant's modules."""
    registry = await terminal.session.registry()
    request = tenant_registry_pb2.ListModulesRequest(parent=await terminal.session.tenant())
    terminal.output.items((await registry.ListModules(request)).modules, _COLUMNS)


@command("enable")
async def enable_module(terminal: Terminal, module: Id) -> None:
    """Switch a module on; those that it requires must be on."""
    await _set(terminal, module, enabled=True)


@command("disable")
async def disable_module(terminal: Terminal, module: Id) -> None:
    """Switch a module off; its data stays, unreadable."""
    await _set(terminal, module, enabled=False)


async def _set(terminal: Terminal, module: str, *, enabled: bool) -> None:
    registry = await terminal.session.registry()
    name = within(await terminal.session.tenant(), "modules", module)
    request = tenant_registry_pb2.SetModuleRequest(name=name, enabled=enabled)
    terminal.output.item(await registry.SetModule(request))
