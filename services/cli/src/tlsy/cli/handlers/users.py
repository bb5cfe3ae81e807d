"""tlsy users."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from grpc.aio import AioRpcError

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import slug, within
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import roles
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.identity.v1 import identity_pb2

_COLUMNS: Final = (
    Column("ID", "name", last=1),
    Column("E-MAIL", "email", fold=True),
    Column("NAME", "displayName", fold=True, spare=3),
    Column("DISABLED", "disabled", spare=1),
    Column("LOCKED UNTIL", "lockedUntil", spare=2),
    Column("LAST LOG-IN", "lastLogInTime", spare=4),
)
_SEARCHED: Final = 100_000

User = Annotated[str, typer.Argument(metavar="USER", help="Its id or its e-mail address.")]


@command("list")
async def list_users(terminal: Terminal, *, limit: Limit = 1000) -> None:
    """The tenant's users."""
    identity = await terminal.session.identity()
    request = identity_pb2.ListUsersRequest(parent=await terminal.session.tenant())
    users = await paged(identity.ListUsers, request, "users", limit, terminal.output)
    terminal.output.items(users, _COLUMNS)


@command("get")
async def get_user(terminal: Terminal, user: User) -> None:
    """One user."""
    identity = await terminal.session.identity()
    request = identity_pb2.GetUserRequest(name=await user_name(terminal, user))
    terminal.output.item(await identity.GetUser(request))


@command("create")
async def create_user(
    terminal: Terminal,
    email: Annotated[str, typer.Argument(help="E-mail address; what one logs in with.")],
    *,
    display_name: Annotated[str, typer.Option(help="For people.")] = "",
    locale: Annotated[str, typer.Option(help="BCP 47.")] = "",
    role: Annotated[
        list[str] | None, typer.Option(help="Bound at once, in all modules; repeat it.", autocompletion=roles)
    ] = None,
    password: Annotated[
        bool, typer.Option("--password/--no-password", help="Ask for a password (or read it from stdin).")
    ] = True,
) -> None:
    """Add a user."""
    identity, parent = await terminal.session.identity(), await terminal.session.tenant()
    if role:
        roles = (await identity.ListRoles(identity_pb2.ListRolesRequest(parent=parent))).roles
        if unknown := sorted(set(role) - {known.id for known in roles}):
            raise UsageError(f"There is no role {unknown[0]!r}; no user was made.", "See: tlsy roles list")
    secret = terminal.files.ask_secret("Password of the new user: ") if password else ""
    user = await identity.CreateUser(
        identity_pb2.CreateUserRequest(
            parent=parent,
            user=identity_pb2.User(email=email, display_name=display_name, locale=locale),
            password=secret,
        )
    )
    # Shown first: if a role cannot be bound, the user is there all the same.
    terminal.output.item(user)
    for bound in dict.fromkeys(role or ()):
        binding = identity_pb2.RoleBinding(principal=user.name, role=bound)
        try:
            await identity.CreateRoleBinding(
                identity_pb2.CreateRoleBindingRequest(parent=parent, role_binding=binding)
            )
        except AioRpcError:
            terminal.output.note(
                f"The user was made; {bound} and the roles after it are to be given: "
                f"tlsy --tenant {slug(parent)} roles bind {email} {bound}"
            )
            raise


@command("disable")
async def disable_user(terminal: Terminal, user: User) -> None:
    """End every session of a user, and let it log in no more."""
    await _switch(terminal, user, disabled=True)


@command("enable")
async def enable_user(terminal: Terminal, user: User) -> None:
    """Let a disabled user log in again."""
    await _switch(terminal, user, disabled=False)


@command("delete")
async def delete_user(terminal: Terminal, user: User) -> None:
    """Remove a user and its roles."""
    identity = await terminal.session.identity()
    name = await user_name(terminal, user)
    await identity.DeleteUser(identity_pb2.DeleteUserRequest(name=name))
    terminal.output.item({"name": name, "deleted": True})


@command("password")
async def set_password(
    terminal: Terminal,
    user: User,
    *,
    own: Annotated[bool, typer.Option("--own", help="It is your own: the old one is asked for.")] = False,
) -> None:
    """Set a user's password; asked for, or read from standard input."""
    old = terminal.files.ask_secret("Old password: ") if own else ""
    new = terminal.files.ask_secret("New password: ")
    identity = await terminal.session.identity()
    name = await user_name(terminal, user)
    await identity.SetPassword(identity_pb2.SetPasswordRequest(name=name, new_password=new, old_password=old))
    terminal.output.item({"name": name, "passwordSet": True})


async def user_name(terminal: Terminal, user: str) -> str:
    """The resource name of a user given by id, e-mail address or name.

    Raises:
        UsageError: nobody has that address.
    """
    parent = await terminal.session.tenant()
    if "@" not in user:
        return within(parent, "users", user)
    identity = await terminal.session.identity()
    request = identity_pb2.ListUsersRequest(parent=parent)
    users = await paged(identity.ListUsers, request, "users", _SEARCHED, terminal.output)
    for found in users:
        if found.email.casefold() == user.casefold():
            return str(found.name)
    raise UsageError(f"No user of {parent} has the address {user}.", "See: tlsy users list")


async def _switch(terminal: Terminal, user: str, *, disabled: bool) -> None:
    identity = await terminal.session.identity()
    name = await user_name(terminal, user)
    request = identity_pb2.UpdateUserRequest(user=identity_pb2.User(name=name, disabled=disabled))
    request.update_mask.paths.append("disabled")
    terminal.output.item(await identity.UpdateUser(request))
