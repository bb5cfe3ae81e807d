"""The life of signing keys: next, signing, verifying, retired.

A key is announced as `next` long enough for every verifier to have fetched it before it signs, and verifies
until the last token that it signed has expired. So a rotation makes no token fail that was good.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Slot(StrEnum):
    """At most one key is `next`, at most one `signing`; any number verify."""

    NEXT = "next"
    SIGNING = "signing"
    VERIFYING = "verifying"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One ES256 key pair.

    Attributes:
        public_jwk: RFC 7517 JSON, public members only.
        sealed_private: the private JWK, encrypted; None once retired.
        announced_time: when it was first in the JWKS.
        signing_since: when it began to sign; None: never.
        verifies_until: set when it stops to sign: no token of it is valid after this time.
    """

    kid: str
    slot: Slot
    public_jwk: str
    sealed_private: bytes | None = field(repr=False)
    announced_time: datetime
    signing_since: datetime | None = None
    verifies_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ring:
    """All keys as they are at once; `version` grows with each change of them."""

    keys: tuple[SigningKey, ...]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """Every time in seconds.

    Attributes:
        period_s: how long a key signs.
        cache_s: how long a verifier may keep a JWKS.
        refresh_s: how long after a change another replica of identity may still act on the old state.
        token_s: the longest life of a token.
        leeway_s: the most that clocks differ.
        keep_retired_s: how long a retired key is kept, as a fact for the audit.
    """

    period_s: float
    cache_s: float
    refresh_s: float
    token_s: float
    leeway_s: float
    keep_retired_s: float

    @property
    def announce(self) -> timedelta:
        """How long a key is `next` at least."""
        return timedelta(seconds=self.cache_s + self.refresh_s + self.leeway_s)

    @property
    def overlap(self) -> timedelta:
        """How long a key verifies after its last signature may have been made."""
        return timedelta(seconds=self.token_s + self.refresh_s + self.leeway_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPlan:
    """What to do with the ring as it is; applied whole, in one transaction under the ring's lock.

    Attributes:
        changed: keys with their new slots and times.
        deleted: kids to forget.
        make: slots that need a new key pair, `signing` before `next`.
    """

    changed: tuple[SigningKey, ...] = ()
    deleted: tuple[str, ...] = ()
    make: tuple[Slot, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is due."""
        return not (self.changed or self.deleted or self.make)


@dataclass(frozen=True, slots=True)
class NotReady:
    """The next key is not known to every verifier before this time."""

    ready_time: datetime


def _retire(keys: Sequence[SigningKey], now: datetime) -> list[SigningKey]:
    return [
        replace(key, slot=Slot.RETIRED, sealed_private=None)
        for key in keys
        if key.slot is Slot.VERIFYING and key.verifies_until is not None and key.verifies_until <= now
    ]


def _forget(keys: Sequence[SigningKey], now: datetime, policy: RotationPolicy) -> tuple[str, ...]:
    keep = timedelta(seconds=policy.keep_retired_s)
    return tuple(
        key.kid
        for key in keys
        if key.slot is Slot.RETIRED and key.verifies_until is not None and key.verifies_until + keep <= now
    )


def only(keys: Sequence[SigningKey], slot: Slot) -> SigningKey | None:
    """The one key in a slot that holds at most one."""
    return next((key for key in keys if key.slot is slot), None)


def plan_rotation(
    keys: Sequence[SigningKey], now: datetime, policy: RotationPolicy, *, forced: bool
) -> RotationPlan | NotReady:
    """What is due.

    `forced` rotates although the signing key's period is not over; NotReady where that is too early.
    An empty ring gets a signing key at once: nobody can have cached a JWKS that was never served. Planned
    again on the outcome, the plan is empty: two replicas that run it under the ring's lock rotate once.
    """
    signing, upcoming = only(keys, Slot.SIGNING), only(keys, Slot.NEXT)
    retired, forgotten = _retire(keys, now), _forget(keys, now, policy)
    if signing is None or signing.signing_since is None:
        missing = (Slot.SIGNING,) if upcoming is not None else (Slot.SIGNING, Slot.NEXT)
        return RotationPlan(changed=tuple(retired), deleted=forgotten, make=missing)
    if upcoming is None:
        return RotationPlan(changed=tuple(retired), deleted=forgotten, make=(Slot.NEXT,))
    ready_time = upcoming.announced_time + policy.announce
    due = forced or signing.signing_since + timedelta(seconds=policy.period_s) <= now
    if due and now < ready_time and forced:
        return NotReady(ready_time)
    if not due or now < ready_time:
        return RotationPlan(changed=tuple(retired), deleted=forgotten)
    stopped = replace(signing, slot=Slot.VERIFYING, verifies_until=now + policy.overlap)
    promoted = replace(upcoming, slot=Slot.SIGNING, signing_since=now)
    return RotationPlan(changed=(stopped, promoted, *retired), deleted=forgotten, make=(Slot.NEXT,))


def served(keys: Sequence[SigningKey]) -> tuple[SigningKey, ...]:
    """The keys that belong in the JWKS."""
    return tuple(key for key in keys if key.slot is not Slot.RETIRED)
