"""What validation is given and what it answers: limits, the fields seen, problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tlsy.rules_engine.domain.events import ValueType

MAX_PROBLEMS: Final = 100
#: Looking for the nearest word is slow: so many per document, each among so many words of so many characters.
_MAX_HINTS: Final = 10
_MAX_WORDS: Final = 200
_MAX_WORD_CHARS: Final = 80


class Code(StrEnum):
    """Why a document is not a rule; stable, callers may depend on them."""

    INVALID_JSON = "INVALID_JSON"
    INVALID_UTF8 = "INVALID_UTF8"
    INVALID_TEXT = "INVALID_TEXT"
    DUPLICATE_KEY = "DUPLICATE_KEY"
    NOT_FINITE = "NOT_FINITE"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    DOCUMENT_TOO_LARGE = "DOCUMENT_TOO_LARGE"
    TOO_DEEP = "TOO_DEEP"
    TOO_MANY_NODES = "TOO_MANY_NODES"
    TOO_MANY_PROBLEMS = "TOO_MANY_PROBLEMS"
    TOO_COSTLY = "TOO_COSTLY"
    TOO_LONG = "TOO_LONG"
    MISSING_MEMBER = "MISSING_MEMBER"
    UNKNOWN_MEMBER = "UNKNOWN_MEMBER"
    UNKNOWN_OPERATOR = "UNKNOWN_OPERATOR"
    UNKNOWN_FIELD = "UNKNOWN_FIELD"
    UNKNOWN_EVENT_TYPE = "UNKNOWN_EVENT_TYPE"
    UNKNOWN_SCHEMA = "UNKNOWN_SCHEMA"
    UNKNOWN_VALUE = "UNKNOWN_VALUE"
    WRONG_TYPE = "WRONG_TYPE"
    WRONG_ARITY = "WRONG_ARITY"
    FIELD_TYPE_UNKNOWN = "FIELD_TYPE_UNKNOWN"
    FIELD_TYPE_CONFLICT = "FIELD_TYPE_CONFLICT"
    DIVISION_BY_ZERO = "DIVISION_BY_ZERO"
    WINDOW_TOO_LARGE = "WINDOW_TOO_LARGE"
    CONFLICTING_MEMBERS = "CONFLICTING_MEMBERS"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where (RFC 6901 pointer), why, and what would help (may be empty)."""

    pointer: str
    code: Code
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLimits:
    """Bounds on one rule, and on what all rules of an event type cost; in units of about 20 ns per event.

    See `docs/rules.md`.
    """

    max_document_bytes: int = 65_536
    max_depth: int = 16
    max_nodes: int = 256
    max_cost: int = 2_000
    max_type_cost: int = 100_000
    max_window_s: int = 7 * 86_400
    max_for_s: int = 7 * 86_400
    max_lateness_s: int = 300
    max_text_chars: int = 1_024
    max_choices: int = 1_000
    max_group_fields: int = 8


@dataclass(frozen=True, slots=True)
class SeenField:
    """The types a field was seen with, and when last (µs since the epoch)."""

    types: frozenset[ValueType]
    last_seen_us: int


@dataclass(frozen=True, slots=True)
class ObservedSchema:
    """The event types a tenant has sent and the `labels.` and `data.` fields seen in each.

    An empty schema knows nothing and refuses nothing: that is a tenant that has not sent anything yet.
    """

    event_types: Mapping[str, Mapping[str, SeenField]] = field(default_factory=dict)

    def fields_of(self, event_type: str) -> Mapping[str, SeenField] | None:
        """The fields of one type, or None if the type was never seen."""
        return self.event_types.get(event_type)


class EnoughProblems(Exception):  # noqa: N818 - read as a fact
    """What is reported suffices; the rest of the document is not read."""


class Report:
    """The problems of one document, MAX_PROBLEMS at most, and what it may cost to find hints for them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._hints_left = _MAX_HINTS

    def add(self, pointer: str, code: Code, message: str, hint: str = "") -> None:
        """One problem. Raises EnoughProblems."""
        self.problems.append(Problem(pointer, code, message, hint))
        if len(self.problems) >= MAX_PROBLEMS:
            text = f"{MAX_PROBLEMS} problems; the rest was not read"
            self.problems.append(Problem("", Code.TOO_MANY_PROBLEMS, text))
            raise EnoughProblems

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        """`did you mean "x"?` for the nearest known word, or nothing; the first few of a document only."""
        if self._hints_left == 0 or len(word) > _MAX_WORD_CHARS:
            return ""
        self._hints_left -= 1
        short = (name for name in known if len(name) <= _MAX_WORD_CHARS)
        words = nsmallest(_MAX_WORDS, short, key=lambda name: abs(len(name) - len(word)))
        near = get_close_matches(word, words, n=1, cutoff=0.6)
        return f'did you mean "{near[0]}"?' if near else ""


def pointer_of(parent: str, token: str | int) -> str:
    """`parent` extended by one reference token, escaped as RFC 6901 says."""
    return f"{parent}/{str(token).replace('~', '~0').replace('/', '~1')}"
