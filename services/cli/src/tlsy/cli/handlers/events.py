"""tlsy events."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict
from grpc.aio import AioRpcError

from tlsy.cli.domain.errors import RefusedError, UsageError
from tlsy.cli.domain.events import completed, event_in, micros, shown
from tlsy.cli.domain.names import pairs
from tlsy.cli.domain.times import moment
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import one_of
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.handlers.tenants import chosen
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS: Final = (
    Column("TIME", "time"),
    Column("SEVERITY", "severity"),
    Column("TYPE", "type"),
    Column("SOURCE", "source", fold=True, spare=3),
    Column("SUBJECT", "subject", fold=True, spare=2),
    Column("VALUE", "value", spare=1),
    Column("LABELS", "labels", fold=True, spare=4),
)
_OUTCOMES: Final = (
    Column("PARTITION", "partition"),
    Column("OFFSET", "offset"),
    Column("TIME", "recordTime", spare=2),
    Column("ACCEPTED", "accepted", spare=3, zero="-"),
    Column("DUPLICATES", "duplicates", spare=4, zero="-"),
    Column("REJECTED", "rejected", zero="-"),
    Column("REASON", "rejections.reason", fold=True),
    Column("WHY", "rejections.message", fold=True, spare=1),
)
_SENT: Final = (Column("OUTCOME", "outcome"), Column("EVENTS", "events"))
#: Its log of events was lost: it does not know which it would have told.
_INTERRUPTED: Final = "TAIL_INTERRUPTED"
#: Why a server ends a stream whose reader may begin again: its token's time, or that of streams, is over,
#: or the server stops and another one answers, or it waits for its log.
_BEGIN_AGAIN: Final = frozenset({"TOKEN_EXPIRED", "DEADLINE_EXCEEDED", "SERVER_STOPPING", _INTERRUPTED})
_BATCH: Final = 500
#: A line that comes alone is sent so much later at most.
_FLUSH_S: Final = 1.0
_LEAST_TAIL_S: Final = 1.0
_SHOWN_REJECTIONS: Final = 50

Type = Annotated[str, typer.Option("--type", help="Only of this type.")]
Source = Annotated[str, typer.Option(help="Only from this source.")]
Labels = Annotated[list[str] | None, typer.Option("--label", "-l", help="key=value; repeat it.")]


@command("query")
async def query_events(
    terminal: Terminal,
    *,
    since: Annotated[str, typer.Option(help="1h, 7d, or a time; inclusive.")] = "1h",
    until: Annotated[str, typer.Option(help="now, 5m, or a time; exclusive.")] = "now",
    type_: Type = "",
    source: Source = "",
    label: Labels = None,
    limit: Limit = 100,
) -> None:
    """Stored events, newest first."""
    now = terminal.clock.now()
    request = ingestion_pb2.QueryEventsRequest(source=source, type=type_, labels=pairs(label or (), "label"))
    request.start_time.FromDatetime(moment(since, now))
    request.end_time.FromDatetime(moment(until, now))
    ingestion = await terminal.session.ingestion()
    request.parent = await terminal.session.tenant()
    events = await paged(ingestion.QueryEvents, request, "events", limit, terminal.output)
    terminal.output.items([_readable(event) for event in events], _COLUMNS)


@command("tail")
async def tail_events(
    terminal: Terminal, *, type_: Type = "", source: Source = "", label: Labels = None
) -> None:
    """Events as they are stored, until interrupted; JSON is one object a line."""
    labels = pairs(label or (), "label")
    ingestion = await terminal.session.ingestion()
    request = ingestion_pb2.TailEventsRequest(
        parent=await terminal.session.tenant(), source=source, type=type_, labels=labels
    )
    while True:
        begun_s = terminal.clock.monotonic()
        try:
            async for answer in ingestion.TailEvents(request):
                if answer.missed:
                    terminal.output.note(f"{answer.missed} events are not shown: this reader is too slow.")
                for event in answer.events:
                    terminal.output.streamed(_readable(event), _COLUMNS)
        except AioRpcError as error:
            # One that a new token does not prolong would end again at once.
            too_soon = terminal.clock.monotonic() - begun_s < _LEAST_TAIL_S
            ended = ServiceError.from_rpc_error(error)
            if too_soon or ended.reason not in _BEGIN_AGAIN:
                raise
            if ended.reason == _INTERRUPTED:
                since = ended.metadata.get("since", "1h")
                terminal.output.note(
                    f"The server lost its log of events: some that were stored since {since} may be missing."
                    " This tail goes on once the log is back. Those that came late have earlier times; find"
                    f" the others with: {_query(terminal, request, since)}"
                )
            ingestion = await terminal.session.ingestion()
        else:
            return


@command("send")
async def send_events(
    terminal: Terminal,
    *,
    type_: Annotated[str, typer.Option("--type", help="Send one event of this type; else stdin.")] = "",
    source: Annotated[str, typer.Option(help="What sends it, where the event does not say.")] = "tlsy",
    event_id: Annotated[
        str, typer.Option("--id", help="Default: a new one. With another --time it is another event.")
    ] = "",
    time: Annotated[str, typer.Option(help="Default: now.")] = "now",
    value: Annotated[float | None, typer.Option(help="A figure.")] = None,
    subject: Annotated[str, typer.Option(help="What it is about.")] = "",
    site: Annotated[str, typer.Option(help="Where.")] = "",
    severity: Annotated[
        str,
        typer.Option(
            help="DEBUG, INFO, WARNING, ERROR, CRITICAL.",
            autocompletion=one_of(ingestion_pb2.Severity.DESCRIPTOR),
        ),
    ] = "",
    label: Labels = None,
) -> None:
    """Send one event given by options, or those on standard input: one JSON object a line."""
    now, sent = terminal.clock.now(), _Sending(terminal)
    if type_:
        event = ingestion_pb2.Event(
            id=event_id,
            time_us=micros(moment(time, now)),
            type=type_,
            subject=subject,
            site=site,
            severity=chosen(ingestion_pb2.Severity.DESCRIPTOR, severity),
            value=value,
            labels=pairs(label or (), "label"),
        )
        await sent.batch([(1, completed(event, source, now, terminal.new_id))])
    else:
        given: dict[str, object] = {"--id": event_id, "--value": value, "--subject": subject, "--site": site}
        given |= {"--severity": severity, "--label": label, "--time": time if time != "now" else ""}
        if stray := [option for option, text in given.items() if text not in (None, "", [])]:
            raise UsageError(
                f"{', '.join(stray)} without --type.",
                "Name the event's --type; without it events are read from standard input.",
            )
        await _send_lines(terminal, source, sent)
    sent.finish()


async def _send_lines(terminal: Terminal, source: str, sent: _Sending) -> None:
    if terminal.files.are_typed():
        terminal.output.note("Reading events, one JSON object a line; Ctrl-D ends.")
    try:
        async for lines in terminal.files.batches(_BATCH, _FLUSH_S):
            events = [
                (number, event_in(line, f"Line {number}", source, terminal.clock.now(), terminal.new_id))
                for number, line in lines
                if line.strip()
            ]
            await sent.batch(events)
    except BaseException:
        sent.interrupted()
        raise


@command("usage")
async def get_usage(terminal: Terminal) -> None:
    """How much of this month's quota is used."""
    ingestion = await terminal.session.ingestion()
    request = ingestion_pb2.GetIngestUsageRequest(parent=await terminal.session.tenant())
    terminal.output.item(await ingestion.GetIngestUsage(request))


@command("outcomes")
async def list_outcomes(terminal: Terminal, *, limit: Limit = 100) -> None:
    """Records of producers that were refused in whole or in part, or repeat events, and why; newest first.

    A Kafka client is not told: the broker takes whatever is written, and its token is looked at afterwards.
    """
    ingestion = await terminal.session.ingestion()
    request = ingestion_pb2.ListIngestOutcomesRequest(parent=await terminal.session.tenant())
    outcomes = await paged(ingestion.ListIngestOutcomes, request, "outcomes", limit, terminal.output)
    terminal.output.items(outcomes, _OUTCOMES)


class _Sending:
    """Batches under way: deferred events are sent again when the server said, rejected ones are told."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._outcomes: Counter[str] = Counter()
        self._rejections: list[str] = []
        self._next_line = 1

    async def batch(self, events: Sequence[tuple[int, ingestion_pb2.Event]]) -> None:
        """Sends events, each with the line it was in, until none is deferred any more."""
        ingestion = await self._terminal.session.ingestion()
        parent = await self._terminal.session.tenant()
        while events:
            request = ingestion_pb2.IngestEventsRequest(parent=parent, events=[event for _, event in events])
            answer = await ingestion.IngestEvents(request)
            for problem in answer.rejections:
                self._note_rejection(*events[problem.index], problem)
            behind = events[-1][0] + 1
            deferred = [
                each
                for each, outcome in zip(events, answer.outcomes, strict=True)
                if outcome == ingestion_pb2.OUTCOME_DEFERRED
            ]
            names = (ingestion_pb2.Outcome.Name(outcome) for outcome in answer.outcomes)
            self._outcomes.update(name.removeprefix("OUTCOME_") for name in names)
            self._outcomes["DEFERRED"] = 0
            events = deferred
            self._next_line = events[0][0] if events else behind
            if events:
                self._terminal.output.progress(f"{len(events)} events wait for the tenant's rate")
                await self._terminal.clock.sleep(max(0.05, answer.retry_after.ToMilliseconds() / 1000))

    def interrupted(self) -> None:
        """Says how to go on."""
        stored = self._outcomes["ACCEPTED"] + self._outcomes["DUPLICATE"]
        self._terminal.output.note(
            f"{stored} events are stored for certain. Go on from line {self._next_line}:"
            " an event that has an id and a time of its own is not doubled."
        )

    def finish(self) -> None:
        """Tells what became of all, or that there were none.

        Raises:
            RefusedError: some were rejected.
        """
        rows = [
            {"outcome": name, "events": self._outcomes[name]}
            for name in ("ACCEPTED", "DUPLICATE", "REJECTED")
        ]
        self._terminal.output.items(rows, _SENT)
        rejected, total = self._outcomes["REJECTED"], self._outcomes.total()
        if not total:
            self._terminal.output.note("There was no event on standard input.")
        if rejected:
            rest = "; the others are stored" if rejected < total else ""
            raise RefusedError(
                f"{rejected} of {total} event(s) rejected{rest}.",
                "Correct them and send them again.",
                self._rejections,
            )

    def _note_rejection(
        self, line: int, event: ingestion_pb2.Event, problem: ingestion_pb2.Rejection
    ) -> None:
        if len(self._rejections) < _SHOWN_REJECTIONS:
            self._rejections.append(
                f"line {line}: {event.source} {event.id}: {problem.reason} {problem.field}: {problem.message}"
            )


def _query(terminal: Terminal, tail: ingestion_pb2.TailEventsRequest, since: str) -> str:
    """The command that finds what a tail may have missed, but for events whose own time is earlier."""
    words = ["tlsy"]
    words += ["--context", terminal.context_name] if terminal.context_name else []
    words += ["--tenant", terminal.tenant] if terminal.tenant else []
    words += ["events", "query", "--since", since]
    words += ["--type", tail.type] if tail.type else []
    words += ["--source", tail.source] if tail.source else []
    for key in sorted(tail.labels):
        words += ["--label", f"{key}={tail.labels[key]}"]
    return shlex.join(words)


def _readable(event: ingestion_pb2.Event) -> dict[str, Any]:
    return MessageToDict(event, always_print_fields_with_no_presence=True) | shown(event)
