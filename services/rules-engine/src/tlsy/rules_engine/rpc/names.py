"""Resource names of the rules engine to ids."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from tlsy.rpc.errors import InvalidArgument, Violation
from tlsy.rules_engine.domain.ast import RuleName
from tlsy.rules_engine.handlers.messages import INCIDENT, RULE, VERSION

#: Above every id there can be.
LAST: Final = UUID(int=2**128 - 1)


def rule_id(name: str, field: str = "name") -> RuleName:
    """Of "tenants/{tenant}/rules/{id}"; else InvalidArgument naming `field`."""
    return RuleName(RULE.parse(name, field=field)["id"])


def version(name: str, field: str) -> tuple[RuleName, str]:
    """Rule and hash, or its beginning; else InvalidArgument naming `field`."""
    found = VERSION.parse(name, field=field)
    return RuleName(found["id"]), found["hash"]


def incident_id(name: str) -> UUID:
    """Of "tenants/{tenant}/incidents/{uuid}", in its canonical spelling; else InvalidArgument."""
    text = INCIDENT.parse(name)["id"]
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text:
        shown = f'must be of the form "{INCIDENT.pattern}", {{id}} a UUID'
        raise InvalidArgument(violations=[Violation("name", "RESOURCE_NAME_INVALID", shown)])
    return parsed
