"""Which fields a transition reports, and how they are read from the event that caused it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from operator import attrgetter

from tlsy.rules_engine.domain.ast import Field, Rule, condition_fields, value_fields
from tlsy.rules_engine.domain.events import HEADER_FIELDS, Event, read_data
from tlsy.rules_engine.domain.template import AGGREGATE, placeholders

if TYPE_CHECKING:
    from tlsy.rules_engine.domain.turn import Operands


class OperandReader:
    """Reads the fields of one rule's conditions and summary; made once per version."""

    def __init__(self, rule: Rule) -> None:
        fields = {field.path: field for field in condition_fields(rule.when)}
        fields |= {field.path: field for field in condition_fields(rule.resolve.when)}
        if rule.window is not None:
            fields |= {field.path: field for field in value_fields(rule.window.of)}
        for path in placeholders(rule.incident.summary)[0]:
            if path != AGGREGATE and path not in fields:
                fields[path] = Field(path, HEADER_FIELDS.get(path, "string"))
        header = [path for path in fields if path in HEADER_FIELDS]
        self._header = tuple((path, attrgetter(path)) for path in header)
        self._labels = tuple(
            (path, path.partition(".")[2]) for path in fields if path.startswith("labels.")
        )
        self._data = tuple(field for field in fields.values() if field.path.startswith("data."))

    def __call__(self, event: Event) -> Operands:
        """The values as the rule saw them; None where missing."""
        found: Operands = {path: read(event) for path, read in self._header}
        labels = event.labels
        for path, key in self._labels:
            found[path] = labels.get(key)
        for field in self._data:
            found[field.path] = read_data(event, field.path, field.type)
        return found
