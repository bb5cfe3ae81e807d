"""Results as a table for people or as JSON for programs, and remarks beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tlsy.cli.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.status import Status

    from tlsy.cli.ports import Column, Item

Format = Literal["table", "json"]

#: No table of ours is as wide: where nobody looks, nothing is cut or wrapped.
_UNBOUNDED: Final = 1_000_000
_GAP: Final = 2
#: What goes over several lines is read as long as a line is not shorter.
_LEAST_FOLDED: Final = 16
_ENUM_PREFIX: Final = re.compile(
    r"^(?:ISOLATION_MODE|TENANT_STATE|SECTOR_PROFILE|TIER|PROVIDER_ACCESS|CLUSTER_KIND|SEVERITY|OUTCOME"
    r"|INCIDENT_STATE)_(?=[A-Z])"
)
_FRACTION: Final = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})\d+Z$")
#: What a terminal would take for an order: one tenant's texts must not steer another's screen.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: What `_CONTROL` lets through, and would end a line that has to be one, or widen it.
_BREAK: Final = re.compile(r"[\t\n]")
#: What stands before the text of a spinner.
_SPINNER: Final = 2
_STYLES: Final[Mapping[str, str]] = {
    "OPEN": "bold red",
    "ACKNOWLEDGED": "yellow",
    "RESOLVED": "green",
    "ACTIVE": "green",
    "FAILED": "bold red",
    "SUSPENDED": "yellow",
    "CRITICAL": "bold red",
    "ERROR": "red",
    "WARNING": "yellow",
    "WRONG": "bold red",
    "OK": "green",
}


class Rendering:
    """The `Output` port. Colours, wrapping and spinners only where a person looks at the stream."""

    def __init__(self, out: TextIO, err: TextIO, chosen: Format) -> None:
        self._out = out
        self._err = err
        self._json = chosen == "json"
        # JSON loses no letter where the stream's encoding has not all.
        self._escaped = (out.encoding or "utf-8").lower() not in {"utf-8", "utf8"}
        self._console = _console(out)
        self._remarks = _console(err)
        self._status: Status | None = None
        self._widths: Mapping[Column, int] = {}

    def items(self, items: Sequence[Item], columns: Sequence[Column]) -> None:
        """See `Output.items`."""
        self.close()
        if self._json:
            self._write_json([as_json(item) for item in items], indent=2)
            return
        all_members = [as_json(item) for item in items]
        cells = {column: [_cell(members, column) for members in all_members] for column in columns}
        shown = _with_room(cells, self._console.width)
        if not shown and items:
            self._one_below_the_other(cells)
            return
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for column in shown or columns:
            table.add_column(column.header, overflow="fold", no_wrap=bool(shown) and not column.fold)
        for row in zip(*(cells[column] for column in shown), strict=True):
            table.add_row(*map(_styled, row))
        self._print(table)
        if shown:
            self._tell_left_out(columns, shown)

    def item(self, item: Item) -> None:
        """See `Output.item`."""
        self.close()
        members = as_json(item)
        if self._json:
            self._write_json(members, indent=2)
            return
        self._print(_details((path, _shown(value)) for path, value in _flat(members)))

    def streamed(self, item: Item, columns: Sequence[Column]) -> None:
        """See `Output.streamed`."""
        self.close()
        members = as_json(item)
        if self._json:
            self._write_json(members, indent=None)
            return
        width = self._console.width
        cells = {column: _BREAK.sub(" ", _cell(members, column)) for column in columns}
        if not self._widths:
            # Its columns are those that the first row has room for: a header stays as it was written.
            shown = _with_room({column: [text] for column, text in cells.items()}, width)
            shown = shown or [column for column in columns if not column.spare]
            self._widths = _fitted({column: cell_len(column.header) for column in shown}, cells, width)
            self._write_row({column: Text(column.header, style="bold") for column in shown}, width)
            self._tell_left_out(columns, shown)
        self._widths = _fitted(self._widths, cells, width)
        self._write_row({column: _styled(cells[column]) for column in self._widths}, width)

    def note(self, text: str) -> None:
        """See `Output.note`."""
        self.close()
        with suppress(OSError):
            self._err.write(f"{_clean(text)}\n")
            self._err.flush()

    def aside(self, text: str) -> None:
        """See `Output.aside`."""
        if self._remarks.is_terminal and not self._json:
            self.note(text)

    def progress(self, text: str) -> None:
        """See `Output.progress`."""
        if not self._remarks.is_terminal:
            return
        shown = Text(_BREAK.sub(" ", _clean(text)))
        shown.truncate(max(self._remarks.width - _SPINNER, 1), overflow="ellipsis")
        if self._status is None:
            self._status = self._remarks.status(shown)
            self._status.start()
        else:
            self._status.update(shown)

    def close(self) -> None:
        """Ends a spinner."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _one_below_the_other(self, cells: Mapping[Column, Sequence[str]]) -> None:
        for number, row in enumerate(zip(*cells.values(), strict=True)):
            if number:
                self._put("\n")
            lines = zip(cells, row, strict=True)
            self._print(_details((column.header, text) for column, text in lines if text))

    def _write_json(self, value: Any, indent: int | None) -> None:
        self._put(json.dumps(value, indent=indent, ensure_ascii=self._escaped) + "\n")

    def _write_row(self, cells: Mapping[Column, Text], width: int) -> None:
        for column, cell in cells.items():
            cell.truncate(self._widths[column], overflow="ellipsis", pad=True)
        row = Text(" " * _GAP).join(cells.values())
        row.rstrip()
        row.truncate(width, overflow="ellipsis")
        self._print(row, soft_wrap=True)

    def _tell_left_out(self, columns: Sequence[Column], shown: Sequence[Column]) -> None:
        if left_out := [column.header for column in columns if column not in shown]:
            self.note(f"No room here for {', '.join(left_out)}; see them on a wider screen or with -o json.")

    def _print(self, shown: Table | Text, *, soft_wrap: bool = False) -> None:
        # Ending a capture writes nothing, but to the stream all the same.
        with _told(), self._console.capture() as capture:
            self._console.print(shown, soft_wrap=soft_wrap)
        self._put("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))

    def _put(self, text: str) -> None:
        with _told():
            self._out.write(text)
            self._out.flush()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"Standard output takes no more: {error.strerror}.", "Make room there, or send it elsewhere."
        ) from error


def as_json(item: Item) -> dict[str, Any]:
    """A message as the proto's JSON, every field there; a mapping as it is."""
    if isinstance(item, Message):
        return MessageToDict(item, always_print_fields_with_no_presence=True)
    return dict(item)


def _console(stream: TextIO) -> Console:
    person = stream.isatty()
    return Console(file=stream, width=None if person else _UNBOUNDED, highlight=False, markup=False)


def _details(lines: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(name, _styled(text))
    return table


def _cell(members: Mapping[str, Any], column: Column) -> str:
    value: Any = members
    for part in column.path.split("."):
        if isinstance(value, list):
            # Of a list of objects each different one, once.
            value = list(dict.fromkeys(each.get(part) for each in value))
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    if column.last:
        parts = column.last
        value = [_last(v, parts) for v in value] if isinstance(value, list) else _last(value, parts)
    return column.zero if value == 0 and not isinstance(value, bool) else _shown(value)


def _with_room(cells: Mapping[Column, Sequence[str]], width: int) -> list[Column]:
    """The columns that a screen has room for; none, if it has not for all that are never left out."""
    least: dict[Column, int] = {}
    for column, texts in cells.items():
        widest = max(map(cell_len, texts), default=0)
        least[column] = max(cell_len(column.header), min(widest, _LEAST_FOLDED) if column.fold else widest)
    shown = {column for column in cells if not column.spare}
    # The last column has no gap behind it.
    room = width + _GAP - sum(least[column] + _GAP for column in shown)
    if room < 0:
        return []
    for column in sorted(cells.keys() - shown, key=lambda column: column.spare):
        if least[column] + _GAP <= room:
            shown.add(column)
            room -= least[column] + _GAP
    return [column for column in cells if column in shown]


def _fitted(widths: Mapping[Column, int], cells: Mapping[Column, str], room: int) -> Mapping[Column, int]:
    """Widths for one more row, at least as before where there is room.

    Where there is not, blanks behind short texts go first, then what is longer than its header: of the column
    that matters least, then of the next.
    """
    needed = {column: cell_len(cells[column]) for column in widths}
    fitted = {column: max(width, needed[column]) for column, width in widths.items()}
    over = sum(fitted.values()) + _GAP * (len(fitted) - 1) - room
    most_needed_first = sorted(fitted, key=lambda column: column.spare)
    for least in (needed, {column: cell_len(column.header) for column in fitted}):
        for column in reversed(most_needed_first):
            given = max(0, min(over, fitted[column] - least[column]))
            fitted[column] -= given
            over -= given
    return fitted


def _last(value: Any, parts: int) -> Any:
    return "/".join(value.split("/")[-parts:]) if isinstance(value, str) else value


def _shown(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(_shown(item) for item in value)
        case Mapping():
            return ", ".join(f"{_clean(str(key))}={_shown(item)}" for key, item in value.items())
        case float():
            return f"{value:.15g}"
    text = _ENUM_PREFIX.sub("", _FRACTION.sub(r"\1Z", _clean(str(value))))
    return "" if text == "UNSPECIFIED" else text


def _clean(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _styled(text: str) -> Text:
    return Text(text, style=_STYLES.get(text, ""))


def _flat(members: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Members of members as "placement.cluster"; a list of objects as "timeline[0].time"."""
    for key, value in members.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                yield from _flat(item, f"{path}[{number}].")
        elif value not in ("", [], {}, None):
            yield path, value
