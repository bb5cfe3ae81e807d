"""Structured logs: one JSON object a line on stdout, with the call's identity, secrets taken out.

For a person at a terminal, who asked for it, the same as text on stderr.

Whatever runs inside a call logs its tenant, principal, trace_id and request_id without naming them: the RPC
interceptor and the consumer loop set them with `log_context`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar, Token
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, MutableMapping, Sequence

    #: Takes an error and the fields of its line; must not wait.
    Report = Callable[[BaseException, Mapping[str, Any]], None]

Logger = structlog.stdlib.BoundLogger
LogFormat = Literal["auto", "json", "text"]

#: Fields added to every line of the running task; replaced as a whole, never changed in place.
_FIELDS: Final[ContextVar[Mapping[str, str]]] = ContextVar("tlsy_log_fields")

_REDACTED: Final = "[redacted]"
_SECRET_PARTS: Final = (
    "authorization",
    "password",
    "secret",
    "api_key",
    "access_token",
    "private_key",
    "cookie",
)
_CUT: Final = "[cut]"
_MAX_TEXT: Final = 8192
#: Of a list or an object, and of those in it.
_MAX_ITEMS: Final = 100
_MAX_DEPTH: Final = 8
#: No reader of JSON takes larger numbers, nor any that is none or infinite.
_MAX_INT_BITS: Final = 64
#: What is behind is not looked at, and so not written.
_MAX_READ: Final = 8 * _MAX_TEXT
_REPORTED_LEVELS: Final = frozenset({"error", "critical"})
#: JSON web tokens. Looked for once a word, and only where a dot ends it: else the time that a long word takes
#: grows with the square of its length.
_TOKEN: Final = re.compile(r"(?<![\w-])(?=[\w-]+\.[\w.-])([\w-]*?)eyJ[\w-]+\.[\w.-]+")
#: API keys as identity shows them once.
_API_KEY: Final = re.compile(r"tlsy_[0-9a-f]{32}_[0-9a-f]+_[\w-]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: What a PostgreSQL error tells of rows, in texts and in stacks, up to its hint, the next stack, or the end.
_ROW: Final = re.compile(
    r"\n[ |]*DETAIL: .*?(?=\n[ |]*HINT: |\n[ |]*\n[ |]*(?:During handling|The above exception)|\Z)", re.DOTALL
)


def set_log_fields(fields: Mapping[str, str]) -> Token[Mapping[str, str]]:
    """Give every line of this task, and of tasks it starts, these fields; returns what undoes it."""
    return _FIELDS.set(fields)


def reset_log_fields(token: Token[Mapping[str, str]]) -> None:
    """Back to what was set before."""
    _FIELDS.reset(token)


def configure_logging(
    *, level: str = "info", text: bool = False, stream: TextIO | None = None, report: Report | None = None
) -> None:
    """Send all logs of the process to `stream` (stdout) as JSON, or (stderr) as `text`; for the host.

    Of other people's libraries only warnings and worse, unless `level` is debug. `report` is handed every
    error that is logged with its traceback.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    stream = stream or (sys.stderr if text else sys.stdout)
    shared = _for_people(stream) if text else _for_machines()
    if report is not None:
        shared.insert(0, _Reporting(report))
    structlog.configure(
        processors=[_add_fields, structlog.stdlib.add_log_level, *shared],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_fields, structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold if threshold <= logging.DEBUG else max(threshold, logging.WARNING))


def wants_text(log_format: LogFormat) -> bool:
    """Whether logs are for a person: as told, and left open if stdout is a terminal."""
    return log_format == "text" or (log_format == "auto" and sys.stdout.isatty())


def get_logger(component: str) -> Logger:
    """A logger whose lines say which part of the program wrote them."""
    return cast("Logger", structlog.get_logger(component=component))


def without_secrets(text: str) -> str:
    """The text with tokens, API keys and rows of tables taken out, and not longer than a line may be."""
    clean = _TOKEN.sub(rf"\1{_REDACTED}", _API_KEY.sub(_REDACTED, _ROW.sub("", text[:_MAX_READ])))
    if len(clean) <= _MAX_TEXT:
        return clean
    # A stack says at its end what broke.
    return f"{clean[: _MAX_TEXT // 4]}\n{_CUT}\n{clean[-_MAX_TEXT * 3 // 4 :]}"


class _Reporting:
    """A processor that hands on what was logged as an error with its traceback."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        told = event.get("exc_info")
        if told and event.get("level") in _REPORTED_LEVELS:
            error = sys.exc_info()[1] if told is True else told[1] if isinstance(told, tuple) else told
            if isinstance(error, BaseException):
                # A line is written whatever becomes of its report.
                with contextlib.suppress(Exception):
                    self._report(error, event)
        return event


def _for_machines() -> list[structlog.typing.Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        redact,
        _render,
    ]


def _for_people(stream: TextIO) -> list[structlog.typing.Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time"),
        structlog.processors.format_exc_info,
        redact,
        _harmless,
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), timestamp_key="time", pad_event_to=0),
    ]


def _add_fields(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    fields = _FIELDS.get(None)
    if fields:
        for key, value in fields.items():
            event.setdefault(key, value)
    return event


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take out secrets by their key, at any depth, and tokens, API keys and a table's rows inside texts."""
    return {key: _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any, depth: int = 0) -> Any:
    name = key.lower().replace("-", "_")
    if any(part in name for part in _SECRET_PARTS):
        return _REDACTED
    if value is None or (isinstance(value, int) and value.bit_length() <= _MAX_INT_BITS):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _clean_all(key, value, depth + 1) if depth < _MAX_DEPTH else _CUT
    # Whatever else it is, it is written as its text, which may hold anything.
    return _text(value)


def _clean_all(
    key: str, values: Mapping[Any, Any] | Collection[Any], depth: int
) -> Mapping[str, Any] | Sequence[Any]:
    cut = len(values) > _MAX_ITEMS
    if isinstance(values, Mapping):
        named = [(_text(name), value) for name, value in islice(values.items(), _MAX_ITEMS)]
        told = {name: _clean(name, value, depth) for name, value in named}
        return {**told, _CUT: len(values)} if cut else told
    items = [_clean(key, item, depth) for item in islice(values, _MAX_ITEMS)]
    return [*items, _CUT] if cut else items


def _text(value: Any) -> str:
    """Nobody's work ends because of what was to be said about it."""
    try:
        return without_secrets(str(value))
    except Exception:  # noqa: BLE001 - see above
        return f"a value without a text ({type(value).__name__})"


def _harmless(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Nothing that a tenant wrote moves the cursor or begins a line; only a stack has lines of its own."""
    return {
        key: "\n".join(map(_visible, value.split("\n")))
        if key == "exception"
        else _visible(value if isinstance(value, str) else repr(value))
        for key, value in event.items()
    }


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _render(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    # Half a character, as JSON and names of files may hold, is none that an output takes.
    return json.dumps(event, ensure_ascii=False).encode(errors="backslashreplace").decode()
