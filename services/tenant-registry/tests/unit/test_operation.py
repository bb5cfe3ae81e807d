from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from tlsy.runtime.ids import TenantId
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.operation import (
    Outcome,
    RetryPolicy,
    attempt_failed,
    started,
    step_done,
    succeeded,
)

from .drafts import NOW

POLICY = RetryPolicy(max_attempts=3, first_delay_s=1, max_delay_s=4)
ID = TenantId(UUID(int=1))


def new(verb: Verb = Verb.CREATE):
    return started(verb, operation_id=ID, owner_id=ID, target_id=ID, target_slug="acme", now=NOW)


def again(operation, *, retryable=True, jitter=1.0):
    return attempt_failed(
        operation,
        reason="CLUSTER_UNREACHABLE",
        message="refused",
        retryable=retryable,
        policy=POLICY,
        now=NOW,
        jitter=jitter,
    )


def test_the_failed_step_carries_the_error_until_it_is_done():
    tried = again(step_done(new(), "place"))
    assert [step.name for step in tried.steps if step.error] == ["migrate"]
    assert not any(step.error for step in succeeded(tried).steps)


def test_the_delay_doubles_up_to_its_limit():
    operation, delays = new(Verb.FENCE), []
    for _ in range(5):
        operation = again(operation)
        delays.append((operation.due_at - NOW).total_seconds())
    assert delays == [1, 2, 4, 4, 4]


def test_jitter_takes_at_most_half_of_the_delay():
    assert again(new(), jitter=0.0).due_at == NOW + timedelta(seconds=0.5)


def test_a_creation_is_given_up_after_its_attempts():
    tried = again(again(again(new())))
    assert (tried.outcome, tried.reason) == (Outcome.FAILED, "CLUSTER_UNREACHABLE")


def test_a_final_error_gives_a_creation_up_at_once():
    assert again(new(), retryable=False).outcome is Outcome.FAILED


@pytest.mark.parametrize("verb", [Verb.FENCE, Verb.DELETE])
def test_a_suspension_or_erasure_is_never_given_up(verb):
    operation = new(verb)
    for _ in range(50):
        operation = again(operation, retryable=False)
    assert operation.outcome is Outcome.RUNNING
