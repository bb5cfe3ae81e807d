"""Whether a document is a rule, judged by the fields that the tenant's events have had."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsy.rules_engine.domain.canonical import version_id
from tlsy.rules_engine.domain.cost import rule_cost
from tlsy.rules_engine.domain.problems import ObservedSchema, SeenField
from tlsy.rules_engine.domain.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tlsy.rpc.call import Call
    from tlsy.rules_engine.domain.ast import VersionId
    from tlsy.rules_engine.domain.problems import Problem, RuleLimits
    from tlsy.rules_engine.ports import ObservedField, ObservedFields
    from tlsy.tenancy.unit_of_work import Tenancy


@dataclass(frozen=True, slots=True)
class Judged:
    """What publishing would make, or what is wrong; one of both."""

    version_id: VersionId | None
    cost: int
    problems: Sequence[Problem]


class ValidateRule:
    """Changes nothing."""

    def __init__(self, *, tenancy: Tenancy, observed: ObservedFields, limits: RuleLimits) -> None:
        self._tenancy = tenancy
        self._observed = observed
        self._limits = limits

    async def run(self, call: Call, document: bytes) -> Judged:
        """Every problem at once."""
        fields = await self._tenancy.run(call.required_tenant().tenant_id, self._observed.load, write=False)
        # The worst document takes a moment.
        rule = await asyncio.to_thread(validate, document, schema_of(fields), self._limits)
        if isinstance(rule, list):
            return Judged(None, 0, rule)
        return Judged(version_id(rule), rule_cost(rule), ())


def schema_of(fields: Iterable[ObservedField]) -> ObservedSchema:
    """The fields as validation takes them."""
    types: dict[str, dict[str, SeenField]] = {}
    for field in fields:
        types.setdefault(field.event_type, {})[field.path] = SeenField(field.types, field.last_seen_us)
    return ObservedSchema(types)
