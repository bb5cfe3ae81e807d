"""What to do so that a tenant's placement becomes what is desired: pure, and the same after any interruption.

`plan` compares what is desired with what was observed and answers the actions that are missing, in order.
Every action is idempotent and the next `plan` starts from a new observation, so that it does not matter after
which action a worker died. A plan may lead only to where the next observation is due. An empty plan means
converged; for an erased tenant it means verified empty.

Only the making of a placement looks at the versions of its tables. A fence is moved, and a tenant erased, at
any version: what was made once is brought to its heads by the roll-out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

from tlsy.tenancy.context import IsolationMode

if TYPE_CHECKING:
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.context import Placement


class Plane(StrEnum):
    """Which of the two databases that know a tenant."""

    PLACEMENT = "PLACEMENT"
    CONTROL = "CONTROL"


class DesiredState(StrEnum):
    """What a tenant's placement is wanted to be."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    ERASED = "ERASED"


class FenceState(StrEnum):
    """What a fence says about its tenant."""

    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DELETING = "DELETING"


@dataclass(frozen=True, slots=True)
class Fence:
    """A fence row; only an ACTIVE one admits writes."""

    epoch: int
    state: FenceState


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredTenant:
    """One tenant as it should be. `epoch` must have grown with every change of placement or state.

    `placed`: False if nothing of it was ever made in its placement, which may be gone: it is not looked at.
    """

    tenant_id: TenantId
    mode: IsolationMode
    placement: Placement
    epoch: int
    state: DesiredState
    placed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedTenant:
    """What is there.

    Attributes:
        database: the placement's database exists.
        schema: the tenant's schema exists in it, with tables.
        outdated: a component of the placement is not at its head; only looked at to provide.
        opened: services may connect to the database and its partitions were made.
        fences: by plane, where there is one.
        occupied: by plane, whether rows of the tenant are there; only looked at to erase.
        unpublished: by plane, whether events of it wait for the relay; only looked at to erase.
    """

    database: bool
    schema: bool
    outdated: bool
    opened: bool
    fence: Fence | None
    control_fence: Fence | None
    occupied: bool = False
    control_occupied: bool = False
    unpublished: bool = False
    control_unpublished: bool = False


@dataclass(frozen=True, slots=True)
class CreateDatabase:
    """Make the tenant's own database from the template."""


@dataclass(frozen=True, slots=True)
class CreateSchema:
    """Make the tenant's own schema with all tables, at once."""


@dataclass(frozen=True, slots=True)
class Migrate:
    """Bring the placement's tables to their heads."""


@dataclass(frozen=True, slots=True)
class OpenDatabase:
    """Make the partitions of today in the tenant's own database, then let services connect."""


@dataclass(frozen=True, slots=True)
class Admit:
    """Fill the tables that every tenant starts with and write its first fence, in one transaction."""

    fence: Fence


@dataclass(frozen=True, slots=True)
class SetFence:
    """Write the fence of one plane; waits for the tenant's open transactions there."""

    plane: Plane
    fence: Fence


@dataclass(frozen=True, slots=True)
class AwaitRelay:
    """Refuse, retryably, as long as the relay has not published every event of the tenant in one plane."""

    plane: Plane


@dataclass(frozen=True, slots=True)
class EraseRows:
    """Delete every row of the tenant from one plane, in batches, but for events that are not published."""

    plane: Plane


@dataclass(frozen=True, slots=True)
class DropSchema:
    """Remove the tenant's own schema."""


@dataclass(frozen=True, slots=True)
class DropDatabase:
    """Remove the tenant's own database."""


@dataclass(frozen=True, slots=True)
class RemoveFence:
    """Forget the tenant in one plane."""

    plane: Plane


Action: TypeAlias = (
    CreateDatabase
    | CreateSchema
    | Migrate
    | OpenDatabase
    | Admit
    | SetFence
    | AwaitRelay
    | EraseRows
    | DropSchema
    | DropDatabase
    | RemoveFence
)


def plan(desired: DesiredTenant, observed: ObservedTenant) -> tuple[Action, ...]:
    """The actions that lead from what was observed to what is desired; none if it is reached."""
    if desired.state is DesiredState.ERASED:
        return tuple(_erase(desired, observed))
    if is_made(desired, observed.fence, observed.control_fence):
        return tuple(_move_fences(Fence(desired.epoch, FenceState(desired.state)), observed))
    return tuple(_provide(desired, observed))


def is_made(desired: DesiredTenant, fence: Fence | None, control_fence: Fence | None) -> bool:
    """Whether nothing is left to provide for it, by the fences that were found: the second one goes up last.

    Who is to be closed is not provided for: without a fence nobody is let in.
    """
    if desired.state is DesiredState.SUSPENDED:
        return True
    return all(found and found.state is not FenceState.DELETING for found in (fence, control_fence))


def _move_fences(wanted: Fence, observed: ObservedTenant) -> list[Action]:
    found = ((Plane.PLACEMENT, observed.fence), (Plane.CONTROL, observed.control_fence))
    return [SetFence(plane, wanted) for plane, fence in found if fence not in (None, wanted)]


def _provide(desired: DesiredTenant, observed: ObservedTenant) -> list[Action]:
    actions: list[Action] = []
    dedicated = desired.mode is IsolationMode.DEDICATED
    if dedicated and not observed.database:
        actions.append(CreateDatabase())
    elif desired.mode is IsolationMode.SCHEMA and not observed.schema:
        actions.append(CreateSchema())
    elif observed.outdated:
        actions.append(Migrate())
    if dedicated and not observed.opened:
        actions.append(OpenDatabase())
    wanted = Fence(desired.epoch, FenceState(desired.state))
    if observed.fence is None:
        actions.append(Admit(wanted))
    elif observed.fence != wanted:
        actions.append(SetFence(Plane.PLACEMENT, wanted))
    if observed.control_fence != wanted:
        actions.append(SetFence(Plane.CONTROL, wanted))
    return actions


def _erase(desired: DesiredTenant, observed: ObservedTenant) -> list[Action]:
    """Nothing is removed before both fences are closed and every event is published; a fence goes last.

    What is unpublished is only known once nobody writes any more, hence from an observation of its own.
    """
    closing = _move_fences(Fence(desired.epoch, FenceState.DELETING), observed)
    if closing:
        return closing
    actions: list[Action] = []
    if observed.unpublished:
        actions.append(AwaitRelay(Plane.PLACEMENT))
    if observed.control_unpublished:
        actions.append(AwaitRelay(Plane.CONTROL))
    return [*actions, *_empty(desired, observed)]


def _empty(desired: DesiredTenant, observed: ObservedTenant) -> list[Action]:
    actions: list[Action] = []
    if desired.mode is IsolationMode.DEDICATED:
        if observed.database:
            actions.append(DropDatabase())
    else:
        if desired.mode is IsolationMode.SCHEMA and observed.schema:
            actions.append(DropSchema())
        if observed.occupied:
            actions.append(EraseRows(Plane.PLACEMENT))
        if observed.fence is not None:
            actions.append(RemoveFence(Plane.PLACEMENT))
    if observed.control_occupied:
        actions.append(EraseRows(Plane.CONTROL))
    if observed.control_fence is not None:
        actions.append(RemoveFence(Plane.CONTROL))
    return actions
