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


#: What helps whoever is told no more than the code.
_HINTS: Final[Mapping[Code, str]] = {
    Code.INVALID_JSON: "send one JSON object, as RFC 8259 has it: no comments, no comma at the end",
    Code.INVALID_UTF8: "save the document as UTF-8",
    Code.INVALID_TEXT: "remove the character; text is Unicode without NUL and half surrogates",
    Code.DUPLICATE_KEY: "keep one of them",
    Code.NOT_FINITE: "JSON has no NaN or Infinity",
    Code.OUT_OF_RANGE: "choose a value between the bounds",
    Code.DOCUMENT_TOO_LARGE: "split it into several rules",
    Code.TOO_DEEP: "join nested and/or into one list, or split the rule",
    Code.TOO_MANY_NODES: "split it into several rules, or test many values with one in",
    Code.TOO_MANY_PROBLEMS: "mend these and validate again",
    Code.TOO_COSTLY: "make patterns shorter and with fewer stars, use starts_with, or split the rule",
    Code.TOO_LONG: "shorten it",
    Code.MISSING_MEMBER: "add it; docs/rules.md lists the members",
    Code.UNKNOWN_MEMBER: "remove it; docs/rules.md lists the members",
    Code.UNKNOWN_OPERATOR: "docs/rules.md lists the operators, and where each may be",
    Code.UNKNOWN_FIELD: "source, type, subject, site, severity, value, labels.<key> or data.<a>.<b>",
    Code.UNKNOWN_EVENT_TYPE: 'list what was seen with ListObservedFields, or set "unseen": true in match',
    Code.UNKNOWN_SCHEMA: 'write "tlsy.rule/1"',
    Code.UNKNOWN_VALUE: "docs/rules.md lists the values",
    Code.WRONG_TYPE: "write a value of the type that is needed here",
    Code.WRONG_ARITY: "give the operator as many arguments as it takes, in a list",
    Code.FIELD_TYPE_UNKNOWN: 'add "type": "number", "string" or "boolean"',
    Code.FIELD_TYPE_CONFLICT: 'leave "type" out, or write the type that the field was seen with',
    Code.DIVISION_BY_ZERO: "divide by something else: the result would always be missing",
    Code.WINDOW_TOO_LARGE: "choose a shorter time",
    Code.CONFLICTING_MEMBERS: "remove one of them",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where (RFC 6901 pointer), why, and what would help; without a hint its code's."""

    pointer: str
    code: Code
    message: str
    hint: str = ""

    def __post_init__(self) -> None:
        if not self.hint:
            object.__setattr__(self, "hint", _HINTS[self.code])


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
