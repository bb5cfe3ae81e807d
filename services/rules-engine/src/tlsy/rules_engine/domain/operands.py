"""Which fields of an event a transition reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from tlsy.rules_engine.domain.ast import Field, Rule, condition_fields, value_fields
from tlsy.rules_engine.domain.events import HEADER_FIELDS
from tlsy.rules_engine.domain.template import AGGREGATE, placeholders

if TYPE_CHECKING:
    from tlsy.rules_engine.domain.events import Event
    from tlsy.rules_engine.domain.turn import Operands


@dataclass(frozen=True, slots=True)
class Told:
    """A member of `data` that the summary alone names, and so no type: it is told as it is."""

    path: str


Operand: TypeAlias = Field | Told


def operand_fields(rule: Rule) -> tuple[Operand, ...]:
    """The fields of a rule's conditions and summary; the severity by its name, not by its rank."""
    fields: dict[str, Operand] = {field.path: field for field in condition_fields(rule.when)}
    fields |= {field.path: field for field in condition_fields(rule.resolve.when)}
    if rule.window is not None:
        fields |= {field.path: field for field in value_fields(rule.window.of)}
    for path in placeholders(rule.incident.summary)[0]:
        if path != AGGREGATE and path not in fields:
            untyped = path.startswith("data.")
            fields[path] = Told(path) if untyped else Field(path, HEADER_FIELDS.get(path, "string"))
    return tuple(Field(path, "string") if path == "severity" else field for path, field in fields.items())


def no_operands(event: Event) -> Operands:
    """What a rule reads before it is bound to its program."""
    del event
    return {}
