"""The pure core against a model of the databases, under interruptions and changes of mind."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tlsy.runtime.ids import TenantId
from tlsy.tenancy.context import IsolationMode, Placement
from tlsy.tenancy.provisioning import (
    Admit,
    AwaitRelay,
    CreateDatabase,
    CreateSchema,
    DesiredState,
    DesiredTenant,
    DropDatabase,
    DropSchema,
    EraseRows,
    Fence,
    FenceState,
    Migrate,
    ObservedTenant,
    OpenDatabase,
    Plane,
    RemoveFence,
    SetFence,
    plan,
)

NOTHING = ObservedTenant(
    database=False, schema=False, outdated=False, opened=False, fence=None, control_fence=None
)


def after(action, seen: ObservedTenant) -> ObservedTenant:  # noqa: C901, PLR0911, PLR0912 - a table
    """What each action is documented to do."""
    match action:
        case CreateDatabase():
            return replace(seen, database=True, schema=True)
        case CreateSchema():
            return replace(seen, schema=True, outdated=False)
        case Migrate():
            return replace(seen, outdated=False)
        case OpenDatabase():
            return replace(seen, opened=True)
        case Admit(fence):
            return replace(seen, fence=fence, occupied=True, unpublished=True)
        case SetFence(Plane.PLACEMENT, fence):
            return replace(seen, fence=fence)
        case SetFence(Plane.CONTROL, fence):
            left = fence.state is not FenceState.DELETING
            return replace(seen, control_fence=fence, control_occupied=True, control_unpublished=left)
        case AwaitRelay(Plane.PLACEMENT):
            return replace(seen, unpublished=False)
        case AwaitRelay(Plane.CONTROL):
            return replace(seen, control_unpublished=False)
        case EraseRows(Plane.PLACEMENT):
            return replace(seen, occupied=False)
        case EraseRows(Plane.CONTROL):
            return replace(seen, control_occupied=False)
        case DropSchema():
            return replace(seen, schema=False)
        case DropDatabase():
            return replace(seen, database=False, schema=False, opened=False, fence=None, occupied=False)
        case RemoveFence(Plane.PLACEMENT):
            return replace(seen, fence=None)
        case RemoveFence(Plane.CONTROL):
            return replace(seen, control_fence=None)
    raise AssertionError(action)


def converged(wanted: DesiredTenant, seen: ObservedTenant):
    for _ in range(4):
        for action in plan(wanted, seen):
            seen = after(action, seen)
    assert plan(wanted, seen) == ()
    return seen


def desired(mode, state, epoch) -> DesiredTenant:
    return DesiredTenant(
        tenant_id=TenantId(UUID(int=1)),
        mode=mode,
        placement=Placement("c", "d", "s"),
        epoch=epoch,
        state=state,
    )


def before_anything(mode) -> ObservedTenant:
    """A common database is there before its tenants; the schema of SHARED ones as well."""
    if mode is IsolationMode.DEDICATED:
        return NOTHING
    return replace(NOTHING, database=True, opened=True, schema=mode is IsolationMode.SHARED)


states = st.lists(st.sampled_from(DesiredState), min_size=1, max_size=4)
interruptions = st.lists(st.integers(min_value=0, max_value=6), max_size=6)


@given(st.sampled_from(IsolationMode), states, interruptions)
def test_any_interruption_ends_in_the_same_place(mode, wanted_states, stops):
    seen = before_anything(mode)
    for epoch, state in enumerate(wanted_states, 1):
        wanted = desired(mode, state, epoch)
        for stop in stops:
            for action in plan(wanted, seen)[:stop]:
                seen = after(action, seen)
        seen = converged(wanted, seen)


@given(st.sampled_from(IsolationMode), states)
def test_erased_means_nothing_is_left(mode, wanted_states):
    seen = before_anything(mode)
    for epoch, state in enumerate([*wanted_states, DesiredState.ERASED], 1):
        seen = converged(desired(mode, state, epoch), seen)
    assert (seen.fence, seen.control_fence, seen.occupied, seen.control_occupied) == (
        None,
        None,
        False,
        False,
    )
    assert seen.schema is (mode is IsolationMode.SHARED)


@given(st.sampled_from(IsolationMode), st.sampled_from(DesiredState))
def test_doing_an_action_twice_is_doing_it_once(mode, state):
    seen = before_anything(mode)
    for action in plan(desired(mode, state, 1), seen):
        seen = after(action, seen)
        assert after(action, seen) == seen


def made(mode, **changes) -> ObservedTenant:
    active = Fence(1, FenceState.ACTIVE)
    seen = replace(before_anything(mode), database=True, schema=True, opened=True)
    return replace(seen, fence=active, control_fence=active, occupied=True, **changes)


@given(st.sampled_from(IsolationMode))
def test_nothing_is_removed_before_both_fences_are_closed_and_the_relay_is_done(mode):
    wanted, seen = (
        desired(mode, DesiredState.ERASED, 2),
        made(mode, unpublished=True, control_unpublished=True),
    )
    closing = plan(wanted, seen)
    assert [type(action) for action in closing] == [SetFence, SetFence]
    for action in closing:
        seen = after(action, replace(seen, unpublished=True))
    kinds = [type(action) for action in plan(wanted, replace(seen, unpublished=True))]
    assert kinds.index(AwaitRelay) < min(
        kinds.index(kind) for kind in (DropDatabase, DropSchema, EraseRows) if kind in kinds
    )


@given(st.sampled_from(IsolationMode), st.sampled_from([DesiredState.SUSPENDED, DesiredState.ACTIVE]))
def test_a_fence_is_moved_whatever_the_version_of_the_tables(mode, state):
    kinds = [type(action) for action in plan(desired(mode, state, 2), made(mode, outdated=True))]
    assert kinds == [SetFence, SetFence]


@given(st.sampled_from(IsolationMode))
def test_a_tenant_is_writable_last(mode):
    actions = plan(desired(mode, DesiredState.ACTIVE, 1), before_anything(mode))
    assert [type(action) for action in actions[-2:]] == [Admit, SetFence]
    assert not {Admit, SetFence} & {type(action) for action in actions[:-2]}


@given(st.sampled_from(IsolationMode), states)
def test_one_action_per_life_of_a_worker_is_enough(mode, wanted_states):
    seen = before_anything(mode)
    for epoch, state in enumerate(wanted_states, 1):
        for _ in range(8):
            for action in plan(desired(mode, state, epoch), seen)[:1]:
                seen = after(action, seen)
        assert plan(desired(mode, state, epoch), seen) == ()
