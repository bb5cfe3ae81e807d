"""tlsy dead-letters."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from tlsy.cli.domain.errors import RefusedError
from tlsy.cli.domain.names import broker_addresses
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.paging import Limit
from tlsy.cli.ports import Column, LetterPlace, Terminal

_COLUMNS: Final = (
    Column("LETTER", "letter"),
    Column("REFUSED", "refusedTime", spare=3),
    Column("REASON", "reason"),
    Column("TENANT", "tenant", spare=1),
    Column("TYPE", "type", spare=2),
    Column("ERROR", "error", fold=True),
)

Brokers = Annotated[
    str,
    typer.Option(
        help="Kafka's address: host:port, several with commas. By TLS: host:port?ca_file=…, and where Kafka "
        "asks for them &user=…&password_file=… and &cert_file=…&key_file=…."
    ),
]
Topic = Annotated[str, typer.Option(help="Where the records were read: tlsy.ingestion.")]
Group = Annotated[str, typer.Option(help="The consumer group that refused them: rules-engine.")]
Through = Annotated[int, typer.Option(help="The last letter; all before it are meant too.")]


@command("list")
async def list_letters(
    terminal: Terminal, *, brokers: Brokers, topic: Topic, group: Group, limit: Limit = 100
) -> None:
    """Records that a consumer refused and nobody is done with, oldest first."""
    letters = await terminal.letters.pending(_place(brokers, topic, group), limit)
    terminal.output.items(letters, _COLUMNS)


@command("show")
async def show_letter(
    terminal: Terminal,
    letter: Annotated[int, typer.Argument(metavar="LETTER", help="Its number.")],
    *,
    brokers: Brokers,
    topic: Topic,
    group: Group,
) -> None:
    """One of them: why it was refused, its headers, its data in base64. No credential is shown."""
    terminal.output.item(await terminal.letters.letter(_place(brokers, topic, group), letter))


@command("replay")
async def replay_letters(
    terminal: Terminal, *, brokers: Brokers, topic: Topic, group: Group, through: Through
) -> None:
    """Put the oldest records back into their topic; what was applied meanwhile is not applied again."""
    count = await terminal.letters.replay(_place(brokers, topic, group), through)
    _done(terminal, count, topic, group, "replayed")


@command("discard")
async def discard_letters(
    terminal: Terminal, *, brokers: Brokers, topic: Topic, group: Group, through: Through
) -> None:
    """Be done with the oldest letters without putting their records back."""
    count = await terminal.letters.discard(_place(brokers, topic, group), through)
    _done(terminal, count, topic, group, "discarded")


def _place(brokers: str, topic: str, group: str) -> LetterPlace:
    return LetterPlace(broker_addresses(brokers), topic, group)


def _done(terminal: Terminal, count: int, topic: str, group: str, what: str) -> None:
    if not count:
        raise RefusedError("No letter up to that number waits.", "See `tlsy dead-letters list`.")
    terminal.output.item({"topic": topic, "group": group, what: count})
