from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tlsy.identity.domain.signing import (
    NotReady,
    RotationPlan,
    RotationPolicy,
    SigningKey,
    Slot,
    only,
    plan_rotation,
    served,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RotationPolicy(
    period_s=86_400, cache_s=300, refresh_s=5, token_s=3600, leeway_s=60, keep_retired_s=7 * 86_400
)


def carry_out(keys: tuple[SigningKey, ...], plan: RotationPlan, now: datetime) -> tuple[SigningKey, ...]:
    changed = {key.kid: key for key in plan.changed}
    kept = [changed.get(key.kid, key) for key in keys if key.kid not in plan.deleted]
    made = [
        SigningKey(
            kid=f"{now.timestamp()}-{slot}",
            slot=slot,
            public_jwk="{}",
            sealed_private=b"sealed",
            announced_time=now,
            signing_since=now if slot is Slot.SIGNING else None,
        )
        for slot in plan.make
    ]
    return (*kept, *made)


def step(keys: tuple[SigningKey, ...], now: datetime, *, forced: bool = False) -> tuple[SigningKey, ...]:
    plan = plan_rotation(keys, now, POLICY, forced=forced)
    assert isinstance(plan, RotationPlan)
    return carry_out(keys, plan, now)


def test_an_empty_ring_gets_a_signing_key_and_the_next() -> None:
    keys = step((), START)
    assert sorted(key.slot for key in keys) == [Slot.NEXT, Slot.SIGNING]


def test_a_plan_carried_out_leaves_nothing_to_do() -> None:
    keys = step((), START)
    later = START + timedelta(days=2)
    rotated = step(keys, later)
    assert plan_rotation(rotated, later, POLICY, forced=False) == RotationPlan()


def test_a_forced_rotation_waits_until_every_verifier_knows_the_next_key() -> None:
    keys = step((), START)
    early = plan_rotation(keys, START + timedelta(seconds=364), POLICY, forced=True)
    assert early == NotReady(START + timedelta(seconds=365))
    rotated = step(keys, START + timedelta(seconds=365), forced=True)
    assert only(rotated, Slot.SIGNING) is not None


def test_the_old_key_verifies_until_its_last_token_has_expired() -> None:
    keys = step((), START)
    old = only(keys, Slot.SIGNING)
    assert old is not None
    rotated = step(keys, START + timedelta(days=1))
    stopped = next(key for key in rotated if key.kid == old.kid)
    assert stopped.slot is Slot.VERIFYING
    assert stopped.verifies_until == START + timedelta(days=1, seconds=3600 + 5 + 60)


def test_a_retired_key_has_no_private_part_and_is_not_served() -> None:
    keys = step(step((), START), START + timedelta(days=1))
    retired = step(keys, START + timedelta(days=1, hours=2))
    old = next(key for key in retired if key.slot is Slot.RETIRED)
    assert old.sealed_private is None
    assert old not in served(retired)


def test_a_retired_key_is_forgotten_after_its_time() -> None:
    old = replace(step((), START)[0], slot=Slot.RETIRED, sealed_private=None, verifies_until=START, kid="old")
    plan = plan_rotation((old,), START + timedelta(days=8), POLICY, forced=False)
    assert isinstance(plan, RotationPlan)
    assert plan.deleted == ("old",)


@given(st.lists(st.tuples(st.integers(1, 200_000), st.booleans()), max_size=30))
def test_whatever_the_times_no_key_signs_before_it_was_announced_and_no_signature_outlives_its_key(
    steps: list[tuple[int, bool]],
) -> None:
    now, keys = START, step((), START)
    for seconds, forced in steps:
        now += timedelta(seconds=seconds)
        plan = plan_rotation(keys, now, POLICY, forced=forced)
        if isinstance(plan, NotReady):
            continue
        keys = carry_out(keys, plan, now)
        signing = [key for key in keys if key.slot is Slot.SIGNING]
        assert len(signing) == 1
        assert len([key for key in keys if key.slot is Slot.NEXT]) == 1
        since = signing[0].signing_since
        assert since is not None
        assert since == START or since - signing[0].announced_time >= POLICY.announce
        for key in keys:
            if key.slot is Slot.RETIRED:
                assert key.verifies_until is not None
                assert key.verifies_until <= now
