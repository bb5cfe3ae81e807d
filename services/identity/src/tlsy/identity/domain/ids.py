"""The names that things of the directory have."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType
from uuid import UUID

UserId = NewType("UserId", UUID)
KeyId = NewType("KeyId", UUID)
BindingId = NewType("BindingId", UUID)


class PrincipalKind(StrEnum):
    """What may hold a role. The value is the collection in resource names."""

    USER = "users"
    API_KEY = "apiKeys"


@dataclass(frozen=True, slots=True)
class PrincipalRef:
    """A user or an API key of the tenant at hand."""

    kind: PrincipalKind
    id: UUID

    def name(self, slug: str) -> str:
        """The resource name, which is also the subject of the principal's tokens."""
        return f"tenants/{slug}/{self.kind.value}/{self.id}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: where, a stable UPPER_SNAKE reason, and words for people."""

    field: str
    reason: str
    description: str
