"""The live view of the demonstration in a terminal."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules_pb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from examples.demo.scenario import Tenant

_SHOWN: Final = 8
#: What is never cut, also in 80 columns: names and texts give way.
_WIDTHS: Final = {"isolation": 9, "events": 6, "per s": 5, "open": 4, "ack.": 4, "resolved": 8}
_COLOURS: Final = (
    (rules_pb.INCIDENT_STATE_OPEN, "red"),
    (rules_pb.INCIDENT_STATE_ACKNOWLEDGED, "yellow"),
    (rules_pb.INCIDENT_STATE_RESOLVED, "green"),
)


def render(tenants: Sequence[Tenant], elapsed_s: float, context: Path) -> Group:
    """Tenants with their rates, the newest incidents of all, and how `tlsy` finds them."""
    table = Table(title=f"TLS-Y, {elapsed_s:.0f} s", title_justify="left", expand=True)
    table.add_column("tenant", no_wrap=True, overflow="ellipsis", ratio=1)
    for heading, width in _WIDTHS.items():
        left = heading == "isolation"
        table.add_column(heading, justify="left" if left else "right", no_wrap=True, width=width)
    for tenant in tenants:
        counts = [
            sum(incident.state == state for incident in tenant.incidents.values()) for state, _ in _COLOURS
        ]
        table.add_row(
            tenant.display_name,
            tenant.mode,
            f"{tenant.stored:,}",
            f"{tenant.rate_per_s:.1f}",
            *(
                Text(str(count), style=colour if count else "dim")
                for count, (_, colour) in zip(counts, _COLOURS, strict=True)
            ),
        )
    end = (
        "Ctrl-C stops; the data stay. For tlsy in another terminal:\n"
        f"export TLSY_CONFIG={shlex.quote(str(context))}"
    )
    return Group(table, _incidents(tenants), Text(end, style="dim", overflow="fold"))


def _incidents(tenants: Sequence[Tenant]) -> Table:
    table = Table(title="Newest incidents", title_justify="left", expand=True)
    table.add_column("opened", no_wrap=True, width=8)
    table.add_column("state", no_wrap=True, width=12)
    table.add_column("tenant", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("summary", no_wrap=True, overflow="ellipsis", ratio=2)
    everything = [(incident, tenant) for tenant in tenants for incident in tenant.incidents.values()]
    everything.sort(key=lambda pair: pair[0].open_time.ToNanoseconds(), reverse=True)
    colours = dict(_COLOURS)
    for incident, tenant in everything[:_SHOWN]:
        state = rules_pb.IncidentState.Name(incident.state).removeprefix("INCIDENT_STATE_").lower()
        opened = incident.open_time.ToDatetime(UTC).astimezone()
        table.add_row(
            f"{opened:%H:%M:%S}"
            if opened.date() == datetime.now(UTC).astimezone().date()
            else f"{opened:%d.%m.}",
            Text(state, style=colours.get(incident.state, "")),
            tenant.display_name,
            incident.summary,
        )
    return table
