"""tlsy context."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from tlsy.cli.domain.contexts import Context, members_of
from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import pairs
from tlsy.cli.handlers.command import command
from tlsy.cli.ports import Column, Terminal

_COLUMNS: Final = (
    Column("IN USE", "inUse"),
    Column("NAME", "name"),
    Column("TENANT", "tenant"),
    Column("ADDRESSES", "addresses", fold=True),
)

Name = Annotated[str, typer.Argument(metavar="CONTEXT", help="Its name.")]


@command("list")
async def list_contexts(terminal: Terminal) -> None:
    """The installations that are known here."""
    known = terminal.files.contexts()
    rows = [
        {
            "inUse": context.name == known.current,
            "name": context.name,
            "tenant": context.tenant,
            "addresses": dict(context.addresses) if "" not in context.addresses else context.addresses[""],
        }
        for context in known.contexts.values()
    ]
    terminal.output.items(rows, _COLUMNS)


@command("use")
async def use_context(terminal: Terminal, name: Name) -> None:
    """Talk to this installation from now on."""
    terminal.files.write_contexts(terminal.files.contexts().using(name))
    terminal.output.item({"current": name})


@command("show")
async def show_context(
    terminal: Terminal,
    name: Annotated[str, typer.Argument(metavar="CONTEXT", help="Default: the one in use.")] = "",
) -> None:
    """One context."""
    context = terminal.files.contexts().chosen(name or terminal.context_name)
    terminal.output.item(_shown(context))


@command("add")
async def add_context(
    terminal: Terminal,
    name: Name,
    *,
    from_: Annotated[Path | None, typer.Option("--from", help="Copy it from another contexts file.")] = None,
    address: Annotated[str, typer.Option(help="host:port of an edge that stands for all services.")] = "",
    service_address: Annotated[
        list[str] | None, typer.Option(help="service=host:port or service=unix:/path; repeat it.")
    ] = None,
    slug: Annotated[str, typer.Option("--default-tenant", help="Acted in where --tenant is not given.")] = "",
    api_key_file: Annotated[Path | None, typer.Option(help="Holds an API key alone.")] = None,
    user: Annotated[str, typer.Option(help="E-mail to log in with.")] = "",
    tls: Annotated[bool | None, typer.Option("--tls/--no-tls", help="Whether calls are encrypted.")] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Authorities to trust instead of the system's.")
    ] = None,
) -> None:
    """Add a context or change what is given of one; the first one is in use at once."""
    if user and api_key_file:
        raise UsageError(
            "A context is one identity: --user and --api-key-file exclude each other.", "Make two contexts."
        )
    for file in filter(None, (api_key_file, ca_file)):
        # Now, and not at the first command that needs it.
        terminal.files.text(file.absolute())
    known = terminal.files.contexts()
    if from_ is not None:
        base = replace(terminal.files.contexts_in(from_).chosen(""), name=name)
        if api_key_file:
            # Another key acts in its own tenant; who logs in by password has to name one.
            base = replace(base, tenant="")
    else:
        base = known.contexts.get(name) or Context(name=name, addresses={})
    # An edge stands for all services: of those that the context had, none is beside it.
    addresses = {"": address} if address else dict(base.addresses)
    addresses |= pairs(service_address or (), "service address")
    changed: dict[str, Any] = {
        "tenant": slug,
        "api_key_file": str(api_key_file.absolute()) if api_key_file else "",
        "user": user,
        "ca_file": str(ca_file.absolute()) if ca_file else "",
    }
    context = replace(base, addresses=addresses, **{key: value for key, value in changed.items() if value})
    if user:
        context = replace(context, api_key_file="")
    elif api_key_file:
        context = replace(context, user="")
    if tls is not None or ca_file is not None:
        context = replace(context, tls=tls is not False)
    if not context.addresses:
        raise UsageError("The context has no address.", "Give --address, --service-address or --from.")
    terminal.files.write_contexts(known.with_context(context))
    terminal.output.item(_shown(context))


@command("rename")
async def rename_context(
    terminal: Terminal,
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="Its new one.")],
) -> None:
    """Give a context another name; one that is in use stays so."""
    terminal.files.write_contexts(terminal.files.contexts().renamed(name, new_name))
    terminal.session.forget(name)
    terminal.output.item({"renamed": name, "name": new_name})


@command("delete")
async def delete_context(terminal: Terminal, name: Name) -> None:
    """Forget a context and its tokens; API keys and the installation stay as they are."""
    terminal.files.write_contexts(terminal.files.contexts().without(name))
    terminal.session.forget(name)
    terminal.output.item({"deleted": name})


def _shown(context: Context) -> dict[str, Any]:
    return {"name": context.name, **members_of(context)}
