"""Long-running operations: named steps, attempts with back-off, and the one end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tlsy.tenant_registry.domain.kinds import Verb

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID

    from tlsy.runtime.ids import TenantId

#: The steps of each verb, in order. A step that is done is never undone.
STEPS: Final[Mapping[Verb, tuple[str, ...]]] = MappingProxyType(
    {
        Verb.CREATE: ("register", "place", "migrate", "fence", "activate"),
        Verb.DELETE: ("fence", "retain", "erase", "verify", "release"),
        Verb.FENCE: ("fence",),
    }
)

_MAX_MESSAGE: Final = 500


class Outcome(StrEnum):
    """Whether an operation has ended, and how."""

    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Step:
    """One named step.

    Attributes:
        error: the last failure, while it is being tried again.
    """

    name: str
    done: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What an operation goes back to; "" where it is not known.

    Attributes:
        principal: who asked for it.
        correlation_id: of the request.
        traceparent: W3C.
    """

    principal: str = ""
    correlation_id: str = ""
    traceparent: str = ""


_UNKNOWN: Final = Cause()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how soon a failed attempt is repeated.

    Attributes:
        max_attempts: after that many, the creation of a tenant is given up.
        first_delay_s: before the second attempt; doubled for each further one.
        max_delay_s: never longer than this.
    """

    max_attempts: int
    first_delay_s: float
    max_delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is being done to one tenant.

    Attributes:
        owner_id: the tenant whose principal asked for it, who may read it.
        target_id, target_slug: the tenant it is done to.
        reason, message: of the failure where the outcome is FAILED; else empty.
        due_at: not tried before.
    """

    operation_id: UUID
    owner_id: TenantId
    target_id: TenantId
    target_slug: str
    verb: Verb
    steps: tuple[Step, ...]
    attempts: int
    outcome: Outcome
    reason: str
    message: str
    created_at: datetime
    due_at: datetime
    cause: Cause

    @property
    def moves_fence(self) -> bool:
        """Whether its next attempt moves a fence and does no more; it takes no time."""
        return self.verb is Verb.FENCE or (self.verb is Verb.DELETE and not self.is_done("fence"))

    def is_done(self, name: str) -> bool:
        """Whether the step `name` is done."""
        return any(step.done for step in self.steps if step.name == name)


def started(
    verb: Verb,
    *,
    operation_id: UUID,
    owner_id: TenantId,
    target_id: TenantId,
    target_slug: str,
    now: datetime,
    cause: Cause = _UNKNOWN,
) -> Operation:
    """A new operation, due at once. The catalogue row exists with it, so `register` is done."""
    return Operation(
        operation_id=operation_id,
        owner_id=owner_id,
        target_id=target_id,
        target_slug=target_slug,
        verb=verb,
        steps=tuple(Step(name, done=name == "register") for name in STEPS[verb]),
        attempts=0,
        outcome=Outcome.RUNNING,
        reason="",
        message="",
        created_at=now,
        due_at=now,
        cause=cause,
    )


def step_done(operation: Operation, name: str) -> Operation:
    """With the step `name` done."""
    return replace(
        operation,
        steps=tuple(Step(name, done=True) if step.name == name else step for step in operation.steps),
    )


def waiting_until(operation: Operation, due_at: datetime) -> Operation:
    """To be taken up again at `due_at`, with a fresh count of attempts: nothing has failed."""
    return replace(operation, due_at=due_at, attempts=0)


def succeeded(operation: Operation) -> Operation:
    """Ended well: all steps done."""
    return replace(
        operation,
        outcome=Outcome.SUCCEEDED,
        steps=tuple(Step(step.name, done=True) for step in operation.steps),
    )


def attempt_failed(
    operation: Operation,
    *,
    reason: str,
    message: str,
    retryable: bool,
    policy: RetryPolicy,
    now: datetime,
    jitter: float,
) -> Operation:
    """After a failed attempt: due again later, or FAILED.

    Only a creation is ever given up. A suspension or an erasure that stopped half-way would leave a writer
    in, or rows behind; these are tried until they succeed, at most `max_delay_s` apart.

    Args:
        operation: as it was when the attempt began, with the steps it got done.
        reason: stable UPPER_SNAKE word.
        message: for a person; cut to 500 characters.
        retryable: whether another attempt can succeed.
        policy: of the retries.
        now: UTC.
        jitter: 0 to 1, spreads the delay between half of it and all of it.
    """
    attempts = operation.attempts + 1
    first_open = next((step.name for step in operation.steps if not step.done), "")
    steps = tuple(
        replace(step, error=f"{reason}: {message}"[:_MAX_MESSAGE]) if step.name == first_open else step
        for step in operation.steps
    )
    tried = replace(operation, attempts=attempts, steps=steps)
    if operation.verb is Verb.CREATE and (not retryable or attempts >= policy.max_attempts):
        return replace(tried, outcome=Outcome.FAILED, reason=reason, message=message[:_MAX_MESSAGE])
    exponent = min(attempts - 1, 30)
    delay_s = min(policy.first_delay_s * 2**exponent, policy.max_delay_s) * (0.5 + jitter / 2)
    return replace(tried, due_at=now + timedelta(seconds=delay_s))
