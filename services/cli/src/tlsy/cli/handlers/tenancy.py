"""tlsy tenancy."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tlsy.cli.domain.errors import RefusedError
from tlsy.cli.handlers.command import command
from tlsy.cli.ports import Column, Terminal

_COLUMNS: Final = (
    Column("CODE", "code"),
    Column("OBJECT", "object", fold=True),
    Column("PROBLEM", "message", fold=True),
    Column("FIX", "fix", fold=True),
)


@command("lint")
async def lint(
    terminal: Terminal,
    *,
    dsn: Annotated[
        list[str], typer.Option(help="postgresql://… of a database, control or tenants'; repeat it.")
    ],
) -> None:
    """Check a database's catalogue: row-level security, policies, keys, grants, indexes."""
    findings = [finding for each in dsn for finding in await terminal.diagnosis.lint(each)]
    terminal.output.items(findings, _COLUMNS)
    if findings:
        raise RefusedError(
            f"{len(findings)} finding(s): tenants may not be kept apart.", "Do what each finding's fix says."
        )
