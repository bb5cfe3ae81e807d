from __future__ import annotations

import io
import json

from tlsy.cli.adapters.rendering import Rendering
from tlsy.cli.ports import Column
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_pb2

COLUMNS = (
    Column("NAME", "name", last=True),
    Column("MODE", "isolationMode"),
    Column("CLUSTER", "placement.cluster"),
    Column("MODULES", "modules"),
)
TENANTS = [
    tenant_pb2.Tenant(
        name="tenants/a-long-name",
        isolation_mode=tenant_pb2.ISOLATION_MODE_SHARED,
        placement=tenant_pb2.Placement(cluster="main"),
        modules=["billing", "reporting"],
    ),
    tenant_pb2.Tenant(name="tenants/b"),
]

TABLE = """\
NAME         MODE    CLUSTER  MODULES
a-long-name  SHARED  main     billing, reporting
b
"""

DETAILS = """\
name                    tenants/t/incidents/1
state                   RESOLVED
values.load             0.5
occurrenceCount         3
timeline[0].kind        opened
timeline[1].kind        resolved
timeline[1].note        done
"""


class Screen(io.StringIO):
    def isatty(self):
        return True


def rendered(chosen, act, stream=None):
    out = stream or io.StringIO()
    act(Rendering(out, io.StringIO(), chosen))
    return out.getvalue()


def test_a_table_has_aligned_columns_and_short_names():
    assert rendered("table", lambda r: r.items(TENANTS, COLUMNS)) == TABLE


def test_an_empty_table_is_its_header():
    assert rendered("table", lambda r: r.items([], COLUMNS)) == "NAME  MODE  CLUSTER  MODULES\n"


def test_json_is_one_array_with_the_protos_names_and_every_field():
    found = json.loads(rendered("json", lambda r: r.items(TENANTS, COLUMNS)))
    assert found[0]["isolationMode"] == "ISOLATION_MODE_SHARED"
    assert {"displayName", "epoch", "hostNames"} <= found[1].keys()


def test_one_thing_is_shown_with_all_that_is_set():
    incident = rules_engine_pb2.Incident(
        name="tenants/t/incidents/1",
        state=rules_engine_pb2.INCIDENT_STATE_RESOLVED,
        occurrence_count=3,
        timeline=[
            rules_engine_pb2.TimelineEntry(kind="opened"),
            rules_engine_pb2.TimelineEntry(kind="resolved", note="done"),
        ],
    )
    incident.values.update({"load": 0.5})
    lines = rendered("table", lambda r: r.item(incident)).splitlines()
    assert [line.split(None, 1) for line in lines] == [line.split(None, 1) for line in DETAILS.splitlines()]


def test_a_screen_gets_colours_and_a_pipe_none():
    rows = [{"state": "OPEN"}]
    columns = (Column("STATE", "state"),)
    assert "\x1b" in rendered("table", lambda r: r.items(rows, columns), Screen())
    assert "\x1b" not in rendered("table", lambda r: r.items(rows, columns))


def test_texts_of_others_cannot_steer_the_screen():
    rows = [{"name": "a\x1b]0;owned\x07\x9b2J"}]
    columns = (Column("NAME", "name"),)
    for act in (lambda r: r.items(rows, columns), lambda r: r.streamed(rows[0], columns)):
        assert not {"\x1b", "\x07", "\x9b"} & set(rendered("table", act))


def test_markup_in_a_text_is_text():
    rows = [{"name": "[red]x[/red]"}]
    assert "[red]x[/red]" in rendered("table", lambda r: r.items(rows, (Column("NAME", "name"),)))


def test_streamed_rows_have_one_header_and_json_one_object_a_line():
    rows = [{"name": "a"}, {"name": "b"}]
    columns = (Column("NAME", "name"),)

    def act(rendering):
        for row in rows:
            rendering.streamed(row, columns)

    assert rendered("table", act) == "NAME\na\nb\n"
    assert [json.loads(line) for line in rendered("json", act).splitlines()] == rows


def test_progress_is_silent_where_nobody_looks():
    err = io.StringIO()
    rendering = Rendering(io.StringIO(), err, "table")
    rendering.progress("1/2")
    rendering.close()
    assert err.getvalue() == ""


def test_figures_are_shown_whole():
    rows = [{"value": value} for value in (12345678.5, 3.0, 0.1 + 0.2, 1e300)]
    shown = rendered("table", lambda r: r.items(rows, (Column("VALUE", "value"),)))
    assert shown.split() == ["VALUE", "12345678.5", "3", "0.3", "1e+300"]
