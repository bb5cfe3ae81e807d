from __future__ import annotations

import importlib
import io
import json
import pkgutil
import re

import pytest
from rich.cells import cell_len

from tlsy.cli import handlers
from tlsy.cli.adapters.rendering import Rendering
from tlsy.cli.handlers import roles
from tlsy.cli.ports import Column
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_pb2

COLUMNS = (
    Column("NAME", "name", last=1),
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


def test_a_streamed_row_is_shown_as_the_same_one_in_a_table(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    row, columns = {"severity": "SEVERITY_CRITICAL"}, (Column("SEVERITY", "severity"),)
    streamed = rendered("table", lambda r: r.streamed(row, columns), Screen())
    assert "\x1b[1;31mCRITICAL\x1b[0m" in streamed
    assert streamed == rendered("table", lambda r: r.items([row], columns), Screen())


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


NARROW = (
    Column("ID", "id"),
    Column("SUMMARY", "summary", fold=True, spare=1),
    Column("OPENED", "opened", spare=3),
    Column("TIMES", "times", spare=2),
)


@pytest.mark.parametrize(
    ("width", "headers", "lines"),
    [
        ("110", ["ID", "SUMMARY", "OPENED", "TIMES"], 1),
        ("66", ["ID", "SUMMARY", "TIMES"], 2),
        ("60", ["ID", "SUMMARY"], 2),
        ("50", ["ID", "TIMES"], 1),
    ],
)
def test_a_narrow_screen_gets_whole_ids_and_fewer_columns_and_is_told_which(
    monkeypatch, width, headers, lines
):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    row = {"id": "0" * 36, "summary": "The certificate ends in six days", "opened": "1" * 20, "times": 7}
    err = io.StringIO()
    out = Screen()
    Rendering(out, err, "table").items([row], NARROW)
    header, *shown = re.sub("\x1b\\[[0-9;]*m", "", out.getvalue()).splitlines()
    assert (header.split(), len(shown)) == (headers, lines)
    assert all(len(line) <= int(width) for line in shown)
    assert "0" * 36 in shown[0]
    left_out = [column.header for column in NARROW if column.header not in headers]
    assert bool(err.getvalue()) is bool(left_out)
    assert ", ".join(left_out) in err.getvalue()


EVENTS = (
    Column("TIME", "time"),
    Column("TYPE", "type"),
    Column("SUBJECT", "subject", fold=True, spare=2),
    Column("VALUE", "value", spare=1),
    Column("LABELS", "labels", fold=True, spare=3),
)
LABELS = {"host": "a-long-name-of-a-host"}


def streamed(monkeypatch, rows, width):
    """The lines that a screen shows of them, and what is remarked."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = Screen(), io.StringIO()
    rendering = Rendering(out, err, "table")
    for row in rows:
        rendering.streamed(row, EVENTS)
    return re.sub("\x1b\\[[0-9;]*m", "", out.getvalue()).splitlines(), err.getvalue()


def test_a_streamed_row_has_the_columns_that_a_narrow_screen_has_room_for(monkeypatch):
    row = {"time": "1" * 24, "type": "host.cpu", "value": 3, "labels": LABELS}
    (header, shown), err = streamed(monkeypatch, [row], 60)
    assert header.split() == ["TIME", "TYPE", "SUBJECT", "VALUE"]
    assert shown.split() == ["1" * 24, "host.cpu", "3"]
    assert err == "No room here for LABELS; see them on a wider screen or with -o json.\n"


def test_a_streamed_row_that_is_too_wide_is_cut_where_it_matters_least(monkeypatch):
    short = {"time": "1" * 24, "type": "a.b", "subject": "x", "value": 3, "labels": LABELS}
    wide = short | {"type": "host.disks", "subject": "日本語の長い名前" * 4, "value": 12345.5}
    (_, first, cut, after), err = streamed(monkeypatch, [short, wide, short], 60)
    assert err.startswith("No room here for LABELS;")
    assert cell_len(cut) == 60
    assert cut.split() == ["1" * 24, "host.disks", "日本語の長い…", "12345.5"]
    assert first.split() == after.split() == ["1" * 24, "a.b", "x", "3"]


def test_a_text_that_was_long_once_takes_no_room_from_others(monkeypatch):
    row = {"time": "1" * 24, "type": "a.b", "subject": "a-whole-name", "value": 12345.5, "labels": LABELS}
    (_, _, cut, last), _ = streamed(monkeypatch, [row, row | {"type": "t" * 50}, row], 60)
    assert cell_len(cut) == 60
    assert cut.split() == ["1" * 24, "t" * 17 + "…", "a-whol…", "1234…"]
    assert last.split() == ["1" * 24, "a.b", "a-whole-name", "12345.5"]


@pytest.mark.parametrize("width", [1, 10, 24, 40])
def test_a_streamed_row_is_one_line_however_narrow_the_screen(monkeypatch, width):
    row = {"time": "1" * 24, "type": "two\nlines\tand more", "subject": "日本", "value": 3}
    lines, _ = streamed(monkeypatch, [row, row], width)
    assert len(lines) == 3
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.endswith("…") for line in lines[1:])


def test_a_streamed_row_is_whole_where_nobody_looks(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = [{"time": "1" * 24, "type": "t" * n, "subject": "s" * 300, "value": 3} for n in (1, 90)]

    def act(rendering):
        for row in rows:
            rendering.streamed(row, EVENTS)

    header, *lines = rendered("table", act).splitlines()
    assert header.split() == [column.header for column in EVENTS]
    assert [line.split() for line in lines] == [[str(value) for value in row.values()] for row in rows]
    assert [json.loads(line) for line in rendered("json", act, Screen()).splitlines()] == rows


def test_progress_is_one_line_of_a_narrow_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    err = Screen()
    rendering = Rendering(io.StringIO(), err, "table")
    rendering.progress("1/2 " + "waits " * 30)
    rendering.progress("2/2 " + "waits " * 30)
    rendering.close()
    shown = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "\n", err.getvalue()).replace("\r", "\n").splitlines()
    assert all(cell_len(line) <= 60 for line in shown)
    assert not any(line.strip().startswith("waits") for line in shown)
    assert any("…" in line for line in shown)


UUID = "0192f3a4-7c1e-7b2a-9d3e-5f6a7b8c9d0e"


TIME = "2026-11-27T11:38:00.123Z"


def tables():
    """Those of all commands."""
    for module in pkgutil.iter_modules(handlers.__path__):
        members = vars(importlib.import_module(f"{handlers.__name__}.{module.name}"))
        for name, value in members.items():
            if isinstance(value, tuple) and all(isinstance(each, Column) for each in value):
                yield pytest.param(value, id=f"{module.name}{name}")


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("columns", list(tables()))
def test_what_a_narrow_screen_gets_of_a_table_is_whole(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    row = {column.path: f"{column.header.lower()}-is-whole" for column in columns}
    row |= {column.path: f"tenants/a-name-of-some-length/some/{UUID}" for column in columns if column.last}
    row |= {column.path: TIME for column in columns if column.path.endswith("Time")}
    shown = re.sub("\x1b\\[[0-9;]*m", "", rendered("table", lambda r: r.items([row], columns), Screen()))
    assert all(len(line.rstrip()) <= width for line in shown.splitlines())
    for column in columns:
        if column.header in shown and not column.fold:
            assert row[column.path].split("/")[-1] in shown


def test_what_has_no_room_beside_each_other_is_shown_one_below_the_other(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    rows = [
        {"name": f"tenants/acme/roleBindings/{UUID}", "principal": f"tenants/acme/users/{UUID}", "role": role}
        for role in ("client-admin", "operator")
    ]
    shown = rendered("table", lambda r: r.items(rows, roles._BINDINGS), Screen())
    assert [line.split() for line in re.sub("\x1b\\[[0-9;]*m", "", shown).splitlines()] == [
        ["BINDING", UUID],
        ["PRINCIPAL", f"users/{UUID}"],
        ["ROLE", "client-admin"],
        [],
        ["BINDING", UUID],
        ["PRINCIPAL", f"users/{UUID}"],
        ["ROLE", "operator"],
    ]


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
