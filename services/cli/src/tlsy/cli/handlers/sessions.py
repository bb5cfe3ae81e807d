"""tlsy login, logout, whoami."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import tenant_name
from tlsy.cli.domain.tokens import payload
from tlsy.cli.handlers.command import command
from tlsy.cli.ports import Terminal


@command("login")
async def log_in(
    terminal: Terminal,
    *,
    user: Annotated[str, typer.Option("--user", "-u", help="E-mail; default: the context's.")] = "",
) -> None:
    """Log in by password (asked for, or standard input's first line)."""
    context = terminal.session.context
    if context.api_key_file:
        raise UsageError(
            f"Context {context.name} acts by its API key; a context is one identity.",
            f"Make another one: {context.another()}",
        )
    email, tenant = user or context.user, terminal.tenant or context.tenant
    if not email or not tenant:
        raise UsageError(
            "Who logs in where is not known.", "Give --user and --tenant, or put them in the context."
        )
    password = terminal.files.ask_secret(f"Password of {email} in {tenant}: ")
    token = await terminal.session.log_in(tenant_name(tenant), email, password)
    terminal.output.item({"context": context.name, "tenant": token.tenant, "principal": token.principal})


@command("logout")
async def log_out(terminal: Terminal) -> None:
    """Forget the context's tokens."""
    count = terminal.session.log_out()
    terminal.output.item({"context": terminal.session.context.name, "forgotten": count})


@command("whoami")
async def who_am_i(terminal: Terminal) -> None:
    """Who the servers take you for, and where."""
    token = await terminal.session.credential()
    roles = payload(token.text).get("roles", [])
    terminal.output.item(
        {
            "context": terminal.session.context.name,
            "tenant": token.tenant,
            "actsIn": await terminal.session.tenant(),
            "principal": token.principal,
            "roles": [f"{role} ({module})" if module else role for role, module in roles],
            "tokenExpireTime": datetime.fromtimestamp(token.expires_at_s, UTC).isoformat(timespec="seconds"),
        }
    )
