"""Which fields a transition reports, and how they are read from the event that caused it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rules_engine.domain.ast import Field, Rule, condition_fields, value_fields
from tlsy.rules_engine.domain.events import HEADER_FIELDS, Event, read_field
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
        self._fields = tuple(fields.values())

    def __call__(self, event: Event) -> Operands:
        """The values as the rule saw them; None where missing."""
        return {field.path: read_field(event, field.path, field.type) for field in self._fields}
