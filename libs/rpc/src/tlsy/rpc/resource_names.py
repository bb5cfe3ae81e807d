"""Resource names: "tenants/{tenant}/users/{user}" to its parts and back."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tlsy.rpc.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

_VARIABLE: Final = re.compile(r"^\{([a-z_]+)\}$")
#: What an id in a name may be made of: slugs, UUIDs, hashes, rule ids; nothing that needs escaping.
_SEGMENT: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")


@dataclass(frozen=True, slots=True)
class NamePattern:
    """The names of one kind of resource, e.g. `NamePattern("tenants/{tenant}/users/{user}")`."""

    pattern: str
    _parts: tuple[tuple[str, re.Match[str] | None], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = tuple((part, _VARIABLE.match(part)) for part in self.pattern.split("/"))
        object.__setattr__(self, "_parts", parts)

    def parse(self, name: str, *, field: str = "name") -> Mapping[str, str]:
        """The variables of `name`.

        Raises:
            InvalidArgument: reason RESOURCE_NAME_INVALID, naming `field`.
        """
        found = self.match(name)
        if found is None:
            shown = f'must be of the form "{self.pattern}"'
            raise InvalidArgument(violations=[Violation(field, "RESOURCE_NAME_INVALID", shown)])
        return found

    def match(self, name: str) -> Mapping[str, str] | None:
        """The variables of `name`, or None if it is not of this kind."""
        segments = name.split("/")
        if len(segments) != len(self._parts):
            return None
        found: dict[str, str] = {}
        for segment, (literal, variable) in zip(segments, self._parts, strict=True):
            if variable is None:
                if segment != literal:
                    return None
            elif _SEGMENT.match(segment) is None or segment.endswith("\n"):
                return None
            else:
                found[variable.group(1)] = segment
        return found

    def format(self, **variables: str) -> str:
        """The name with these variables; a variable too many, too few or malformed is a programming error."""
        wanted = {variable.group(1) for _, variable in self._parts if variable is not None}
        if wanted != variables.keys():
            raise ValueError(f"{self.pattern} takes {sorted(wanted)}, got {sorted(variables)}")
        name = "/".join(
            literal if variable is None else variables[variable.group(1)] for literal, variable in self._parts
        )
        if self.match(name) is None:
            raise ValueError(f"{name!r} is not of the form {self.pattern}")
        return name


TENANT: Final = NamePattern("tenants/{tenant}")


def check_parent(name: str) -> None:
    """Of "tenants/{tenant}"; that it is the token's was checked before. Else InvalidArgument."""
    TENANT.parse(name, field="parent")
