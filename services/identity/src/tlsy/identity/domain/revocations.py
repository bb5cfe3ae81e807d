"""Revocations: tokens of a principal issued at or before a time are refused everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID


class Cause(StrEnum):
    """What ended the principal's tokens."""

    KEY = "key"
    USER = "user"
    ROLE = "role"
    PASSWORD = "password"  # noqa: S105  the name of a cause


#: How much later than a token's own expiry a verifier with a slow clock may still accept it.
CLOCK_LEEWAY: Final = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedRevocation:
    """`principal` is the token's subject; after `expire_time` no token that it concerns can be valid."""

    tenant_id: UUID
    principal: str
    revoke_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation(IndexedRevocation):
    """A revocation where it is made, with its cause."""

    cause: Cause


def revoke(
    tenant_id: UUID, principal: str, cause: Cause, now: datetime, longest_token: timedelta
) -> Revocation:
    """The revocation of everything issued to `principal` up to `now`."""
    return Revocation(
        tenant_id=tenant_id,
        principal=principal,
        revoke_time=now,
        expire_time=now + longest_token + CLOCK_LEEWAY,
        cause=cause,
    )
