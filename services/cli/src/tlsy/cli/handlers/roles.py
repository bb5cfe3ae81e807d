"""tlsy roles."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tlsy.cli.domain.names import within
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import modules, roles
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.handlers.users import user_name
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.identity.v1 import identity_pb2

_ROLES: Final = (
    Column("ROLE", "id"),
    Column("DESCRIPTION", "description", fold=True),
    Column("PERMISSIONS", "permissions", fold=True),
)
_BINDINGS: Final = (
    Column("BINDING", "name", last=1),
    Column("PRINCIPAL", "principal", last=2, fold=True),
    Column("ROLE", "role"),
    Column("MODULE", "module", spare=1),
)

Principal = Annotated[
    str, typer.Argument(metavar="PRINCIPAL", help="A user's id or e-mail, or apiKeys/ID for a key.")
]


@command("list")
async def list_roles(terminal: Terminal) -> None:
    """The roles there are and what each permits."""
    identity = await terminal.session.identity()
    request = identity_pb2.ListRolesRequest(parent=await terminal.session.tenant())
    terminal.output.items((await identity.ListRoles(request)).roles, _ROLES)


@command("bindings")
async def list_bindings(
    terminal: Terminal,
    *,
    principal: Annotated[str, typer.Option(metavar="PRINCIPAL", help="Only of this one.")] = "",
    limit: Limit = 1000,
) -> None:
    """Who has which role."""
    identity = await terminal.session.identity()
    request = identity_pb2.ListRoleBindingsRequest(
        parent=await terminal.session.tenant(),
        principal=await _principal_name(terminal, principal) if principal else "",
    )
    bindings = await paged(identity.ListRoleBindings, request, "role_bindings", limit, terminal.output)
    terminal.output.items(bindings, _BINDINGS)


@command("bind")
async def bind_role(
    terminal: Terminal,
    principal: Principal,
    role: Annotated[str, typer.Argument(help="As listed.", autocompletion=roles)],
    *,
    module: Annotated[
        str, typer.Option(help="Only in this module; default: in all.", autocompletion=modules)
    ] = "",
) -> None:
    """Give a role."""
    identity = await terminal.session.identity()
    binding = identity_pb2.RoleBinding(
        principal=await _principal_name(terminal, principal), role=role, module=module
    )
    request = identity_pb2.CreateRoleBindingRequest(
        parent=await terminal.session.tenant(), role_binding=binding
    )
    terminal.output.item(await identity.CreateRoleBinding(request))


@command("unbind")
async def unbind_role(
    terminal: Terminal, binding: Annotated[str, typer.Argument(help="Its id, as listed by bindings.")]
) -> None:
    """Take a role away."""
    identity = await terminal.session.identity()
    name = within(await terminal.session.tenant(), "roleBindings", binding)
    await identity.DeleteRoleBinding(identity_pb2.DeleteRoleBindingRequest(name=name))
    terminal.output.item({"name": name, "deleted": True})


async def _principal_name(terminal: Terminal, text: str) -> str:
    if text.startswith("apiKeys/"):
        return f"{await terminal.session.tenant()}/{text}"
    return await user_name(terminal, text)
