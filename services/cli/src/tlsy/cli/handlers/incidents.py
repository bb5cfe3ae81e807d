"""tlsy incidents."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

import typer

from tlsy.cli.domain.errors import UsageError
from tlsy.cli.domain.names import within
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.completion import one_of
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.handlers.tenants import chosen
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2

_COLUMNS: Final = (
    Column("ID", "name", last=1),
    Column("STATE", "state"),
    Column("SEVERITY", "severity", spare=1),
    Column("RULE", "rule", last=1, fold=True, spare=3),
    Column("SUBJECT", "subject", fold=True, spare=4),
    Column("OPENED", "openTime", spare=5),
    Column("TIMES", "occurrenceCount", spare=6),
    Column("SUMMARY", "summary", fold=True, spare=2),
)
#: As many as a server gives at once.
_WATCHED: Final = 1000

Id = Annotated[str, typer.Argument(metavar="INCIDENT", help="Its id.")]
Rule = Annotated[str, typer.Option(metavar="RULE", help="Only of this rule.")]
Note = Annotated[str, typer.Option(help="Kept in the timeline.")]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        help="OPEN, ACKNOWLEDGED, RESOLVED; repeat it.",
        autocompletion=one_of(rules_engine_pb2.IncidentState.DESCRIPTOR),
    ),
]


@command("list")
async def list_incidents(
    terminal: Terminal,
    *,
    state: States = None,
    rule: Rule = "",
    site: Annotated[str, typer.Option(help="Only of this site.")] = "",
    limit: Limit = 100,
) -> None:
    """Incidents, newest first."""
    rules, request = await terminal.session.rules(), await _listing(terminal, state or [], rule, site)
    incidents = await paged(rules.ListIncidents, request, "incidents", limit, terminal.output)
    terminal.output.items(incidents, _COLUMNS)


@command("get")
async def get_incident(terminal: Terminal, incident: Id) -> None:
    """One incident with its timeline."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.GetIncidentRequest(name=await _incident(terminal, incident))
    terminal.output.item(await rules.GetIncident(request))


@command("ack")
async def acknowledge_incident(terminal: Terminal, incident: Id, *, note: Note = "") -> None:
    """Say that somebody works on it."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.AcknowledgeIncidentRequest(name=await _incident(terminal, incident), note=note)
    terminal.output.item(await rules.AcknowledgeIncident(request))


@command("resolve")
async def resolve_incident(terminal: Terminal, incident: Id, *, note: Note = "") -> None:
    """Say that it is over."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.ResolveIncidentRequest(name=await _incident(terminal, incident), note=note)
    terminal.output.item(await rules.ResolveIncident(request))


@command("watch")
async def watch_incidents(
    terminal: Terminal,
    *,
    state: States = None,
    rule: Rule = "",
    site: Annotated[str, typer.Option(help="Only of this site.")] = "",
    interval_s: Annotated[float, typer.Option("--interval", min=0.2, max=60, help="Seconds.")] = 2.0,
) -> None:
    """Incidents as they open and change, until interrupted; JSON is one object a line."""
    seen: dict[str, str] = {}
    more_told = False
    while True:
        request = await _listing(terminal, state or [], rule, site)
        request.page_size = _WATCHED
        page = await (await terminal.session.rules()).ListIncidents(request)
        incidents = page.incidents
        if page.next_page_token and not more_told:
            more_told = True
            terminal.output.note(
                f"Only the {len(incidents)} newest are watched; choose with --state, --rule or --site."
            )
        for incident in reversed(incidents):
            if seen.get(incident.name) != incident.etag:
                terminal.output.streamed(incident, _COLUMNS)
        seen = {incident.name: incident.etag for incident in incidents}
        await terminal.clock.sleep(interval_s)


async def _incident(terminal: Terminal, text: str) -> str:
    try:
        UUID(text.rpartition("/")[2])
    except ValueError:
        raise UsageError(f"{text!r} is no incident's id.", "See: tlsy incidents list") from None
    return within(await terminal.session.tenant(), "incidents", text)


async def _listing(
    terminal: Terminal, states: list[str], rule: str, site: str
) -> rules_engine_pb2.ListIncidentsRequest:
    parent = await terminal.session.tenant()
    return rules_engine_pb2.ListIncidentsRequest(
        parent=parent,
        states=[chosen(rules_engine_pb2.IncidentState.DESCRIPTOR, text) for text in states],
        rule=within(parent, "rules", rule) if rule else "",
        site=site,
    )
