"""tlsy keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import within
from tlsy.cli.domain.times import duration
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import roles
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.identity.v1 import identity_pb2

_COLUMNS: Final = (
    Column("ID", "name", last=1),
    Column("NAME", "displayName", fold=True),
    Column("ROLE", "role", spare=2),
    Column("PREFIX", "prefix", spare=4),
    Column("CREATED", "createTime", spare=5),
    Column("EXPIRES", "expireTime", spare=3),
    Column("REVOKED", "revokeTime", spare=1),
)


@command("list")
async def list_keys(terminal: Terminal, *, limit: Limit = 1000) -> None:
    """The tenant's API keys; secrets are shown once, at creation."""
    identity = await terminal.session.identity()
    request = identity_pb2.ListApiKeysRequest(parent=await terminal.session.tenant())
    keys = await paged(identity.ListApiKeys, request, "api_keys", limit, terminal.output)
    terminal.output.items(keys, _COLUMNS)


@command("create")
async def create_key(
    terminal: Terminal,
    display_name: Annotated[str, typer.Argument(help="What it is for, e.g. a host's name.")],
    *,
    role: Annotated[str, typer.Option(help="What it may do.", autocompletion=roles)] = "agent",
    expires_in: Annotated[str, typer.Option(help="E.g. 90d; default: never.")] = "",
    output_file: Annotated[
        Path | None, typer.Option(help="Write the secret there (0600) instead of showing it.")
    ] = None,
) -> None:
    """Make an API key; its secret is in this answer and nowhere else."""
    request = identity_pb2.CreateApiKeyRequest(display_name=display_name, role=role)
    if expires_in:
        request.expire_time.FromDatetime(terminal.clock.now() + duration(expires_in))
    identity = await terminal.session.identity()
    request.parent = await terminal.session.tenant()
    if output_file is None:
        answer = await identity.CreateApiKey(request)
        _show_once(terminal, answer)
    else:
        # The file first: a secret that has nowhere to go would be lost.
        with terminal.files.new_secret(output_file) as file:
            answer = await identity.CreateApiKey(request)
            file.write(answer.secret + "\n")
        answer.ClearField("secret")
        terminal.output.item(answer)


def _show_once(terminal: Terminal, answer: identity_pb2.CreateApiKeyResponse) -> None:
    try:
        terminal.output.item(answer)
    except UsageError as error:
        key = answer.api_key.name.rsplit("/", 1)[-1]
        raise UsageError(
            f"{error.what} The key was made, and its secret is lost.",
            f"Revoke it (tlsy keys revoke {key}) and make another, with --output-file.",
        ) from error
    terminal.output.note("Keep the secret now: it is not shown again.")


@command("revoke")
async def revoke_key(terminal: Terminal, key: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Refuse a key everywhere, and the tokens it was exchanged for."""
    identity = await terminal.session.identity()
    name = within(await terminal.session.tenant(), "apiKeys", key)
    terminal.output.item(await identity.RevokeApiKey(identity_pb2.RevokeApiKeyRequest(name=name)))
