"""Guards in SQL, each with a probe of its own layer and the mutant that takes it away.

Layers mask each other: a call that lost its name check still meets row-level security. So a probe goes at its
layer directly, as the service's role, as the owner of the tables, or through the catalogue linter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import asyncpg

from tlsy.tenancy.context import IsolationMode
from tlsy.tenancy.database import PoolLimits
from tlsy.tenancy.errors import NotWritable, StaleEpoch
from tlsy.tenancy.lint import lint
from tlsy.tenancy.provisioning import DesiredState
from tlsy.testkit.mutants import alter_function

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tlsy.tenancy.catalog import TenantEntry
    from tlsy.tenancy.database import Connection
    from tlsy.tenancy.unit_of_work import Tenancy
    from tlsy.testkit.installation import Installation

Layer = Literal["SQL as the service's role", "SQL as the owner", "catalogue lint", "RPC", "topic"]
_ONE: Final = PoolLimits(total=1, per_database=1)
_SERVICE: Final[Layer] = "SQL as the service's role"
_LOCK: Final = "pg_advisory_xact_lock_shared(uuid_hash_extended(tenant, 0)) is not null"
_PARTITION_RLS: Final = (
    "execute format('alter table %s enable row level security, force row level security', name);"
)
INSERT: Final = (
    "insert into {}.events values ($1, now(), '\\x00', 's', 'e', 't', '', '', 0, null, '{{}}', null)"
)


@dataclass(frozen=True, slots=True)
class Guard:
    """`holds` answers whether the guard is there; that it raises says nothing of that."""

    layer: Layer
    holds: Callable[[Scratch], Awaitable[bool]]
    take_away: Callable[[Scratch], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scratch:
    """A database with two SHARED tenants and a SCHEMA one, an event of each, and the administrator's hand.

    `ingestion` has one connection, so that every transaction is on the one before.
    """

    installation: Installation
    ours: TenantEntry
    theirs: TenantEntry
    apart: TenantEntry
    ingestion: Tenancy
    owner: Connection

    @classmethod
    async def made(cls, installation: Installation) -> Scratch:
        ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
        apart = await installation.provisioned_tenant(IsolationMode.SCHEMA)
        owner = await installation.connect(None, installation.common)
        for tenant in (ours, theirs, apart):
            await owner.execute(INSERT.format(tenant.placement.schema), tenant.tenant_id)
        return cls(installation, ours, theirs, apart, installation.tenancy("ingestion", _ONE), owner)

    async def inside(self, tenant: TenantEntry, sql: str) -> object:
        """One value, as the service inside the tenant."""
        async with self.ingestion.transaction(tenant.context, write=True) as tx:
            return await tx.fetchval(sql)

    async def beside(self, sql: str) -> object:
        """One value on the same connection afterwards, with no context at all."""
        async with self.ingestion._databases.acquire(self.installation.common) as connection:
            return await connection.fetchval(sql)


def executed(sql: str) -> Callable[[Scratch], Awaitable[None]]:
    async def take_away(scratch: Scratch) -> None:
        await scratch.owner.execute(sql.format(apart=scratch.apart.placement.schema))

    return take_away


def altered(function: str, old: str, new: str) -> Callable[[Scratch], Awaitable[None]]:
    async def take_away(scratch: Scratch) -> None:
        await alter_function(scratch.owner, function, old, new)

    return take_away


async def others_rows_are_unseen(scratch: Scratch) -> bool:
    sql = f"select count(*) from events where tenant_id = '{scratch.theirs.tenant_id}'"
    return await scratch.inside(scratch.ours, sql) == 0


async def rows_of_another_schema_are_unseen(scratch: Scratch) -> bool:
    return (
        await scratch.inside(scratch.ours, f"select count(*) from {scratch.apart.placement.schema}.events")
        == 0
    )


async def rows_for_others_are_refused(scratch: Scratch) -> bool:
    sql = INSERT.format("shared").replace("$1", f"'{scratch.theirs.tenant_id}'")
    try:
        await scratch.inside(scratch.ours, sql)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False


async def the_owner_sees_nothing(scratch: Scratch, table: str = "events") -> bool:
    async with scratch.owner.transaction():
        await scratch.owner.execute("set local role tlsy_owner")
        return bool(await scratch.owner.fetchval(f"select count(*) = 0 from shared.{table}"))


async def a_used_connection_reads_nothing_and_does_not_fail(scratch: Scratch) -> bool:
    await scratch.inside(scratch.ours, "select 1")
    # Not partitioned: there the fence's policy alone lets PostgreSQL leave the other one out.
    try:
        return await scratch.beside("select count(*) from shared.ingest_counts") == 0
    except asyncpg.InvalidTextRepresentationError:
        return False


async def own_rows_are_seen(scratch: Scratch) -> bool:
    # By its whole name: where no context is entered the table is found by no other.
    return await scratch.inside(scratch.ours, "select count(*) from shared.events") == 1


async def nothing_is_left_on_the_connection(scratch: Scratch) -> bool:
    await scratch.inside(scratch.ours, "select 1")
    return await scratch.beside("select current_setting('app.current_tenant', true)") == ""


async def a_writer_commits_before_the_fence_moves(scratch: Scratch) -> bool:
    provisioner = await scratch.installation.connect("tlsy_migrator", scratch.installation.common)
    await provisioner.execute("set lock_timeout = '100ms'")
    async with scratch.ingestion.transaction(scratch.ours.context, write=True):
        moving = provisioner.transaction()
        await moving.start()
        try:
            flip = "select tlsy.set_fence($1, 2, true, 'ACTIVE', 'shared')"
            await provisioner.execute(flip, scratch.ours.tenant_id)
        except asyncpg.LockNotAvailableError:
            return True
        finally:
            await moving.rollback()
    return False


async def a_stale_epoch_is_refused(scratch: Scratch) -> bool:
    try:
        await scratch.inside(replace(scratch.ours, epoch=7), "select 1")
    except StaleEpoch:
        return True
    return False


async def a_suspended_tenant_is_not_written(scratch: Scratch) -> bool:
    asleep = replace(scratch.apart, epoch=2)
    await scratch.installation.converge(asleep, DesiredState.SUSPENDED)
    try:
        await scratch.inside(asleep, "select 1")
    except NotWritable:
        return True
    return False


async def a_context_beside_enter_is_fenced(scratch: Scratch) -> bool:
    stale = (
        f"select set_config('app.current_tenant', '{scratch.ours.tenant_id}', true),"
        " set_config('app.epoch', '7', true)"
    )
    async with (
        scratch.ingestion._databases.acquire(scratch.ours.placement) as connection,
        connection.transaction(),
    ):
        await connection.execute(stale)
        return bool(await connection.fetchval("select count(*) = 0 from shared.events"))


async def a_new_partition_shows_nothing(scratch: Scratch) -> bool:
    day = await scratch.owner.fetchval("select max(ts)::date - 90 from shared.events")
    await scratch.owner.execute("drop table if exists shared.events_p" + f"{day:%Y%m%d}")
    await scratch.owner.execute("select tlsy.ensure_partition('shared.events', 'day', $1)", day)
    row = INSERT.format("shared").replace("now()", f"'{day} 12:00+00'")
    await scratch.owner.execute(row, scratch.ours.tenant_id)
    return await the_owner_sees_nothing(scratch, f"events_p{day:%Y%m%d}")


async def the_linter_is_content(scratch: Scratch) -> bool:
    return await lint(scratch.owner, scratch.installation.schemas.services) == ()


_RAW: Final = "tenant_id = (select current_setting('app.current_tenant', true))::uuid"
_ANY_NEW_PARTITION: Final = "select tlsy.ensure_partition('{apart}.events', 'month', '2020-01-01');"
_NO_CONTEXT: Final = (
    "create or replace procedure tlsy.enter(tenant uuid, epoch bigint, write boolean) language sql as ''"
)

SQL_GUARDS: Final[Mapping[str, Guard]] = {
    "policy (SHARED)": Guard(
        _SERVICE, others_rows_are_unseen, executed("alter policy tenant on shared.events using (true)")
    ),
    "policy (SCHEMA)": Guard(
        _SERVICE,
        rows_of_another_schema_are_unseen,
        executed(
            "alter policy tenant on {apart}.events using (true);"
            "alter policy fence on {apart}.events using (true)"
        ),
    ),
    "policy, for writes": Guard(
        _SERVICE,
        rows_for_others_are_refused,
        executed("alter policy tenant on shared.events with check (true)"),
    ),
    "policy, in the catalogue": Guard(
        "catalogue lint", the_linter_is_content, executed("drop policy tenant on {apart}.events")
    ),
    "FORCE": Guard(
        "SQL as the owner",
        the_owner_sees_nothing,
        executed("alter table shared.events no force row level security"),
    ),
    "FORCE, in the catalogue": Guard(
        "catalogue lint",
        the_linter_is_content,
        executed("alter table {apart}.users no force row level security"),
    ),
    "nullif": Guard(
        _SERVICE,
        a_used_connection_reads_nothing_and_does_not_fail,
        executed(f"alter policy tenant on shared.ingest_counts using ({_RAW})"),
    ),
    "nullif, in the catalogue": Guard(
        "catalogue lint",
        the_linter_is_content,
        executed(f"alter policy tenant on {{apart}}.rules using ({_RAW})"),
    ),
    "context call": Guard(_SERVICE, own_rows_are_seen, executed(_NO_CONTEXT)),
    "its transaction scope": Guard(
        _SERVICE,
        nothing_is_left_on_the_connection,
        altered("tlsy.enter", "tenant::text, true)", "tenant::text, false)"),
    ),
    "lock in enter": Guard(
        _SERVICE, a_writer_commits_before_the_fence_moves, altered("tlsy.enter", _LOCK, "true")
    ),
    "fence: epoch": Guard(
        _SERVICE,
        a_stale_epoch_is_refused,
        altered("tlsy.enter", "f.epoch = enter.epoch and (f", "(f"),
    ),
    "fence: writable": Guard(
        _SERVICE,
        a_suspended_tenant_is_not_written,
        altered("tlsy.enter", "f.writable or not enter.write", "true"),
    ),
    "fence, as a policy": Guard(
        _SERVICE,
        a_context_beside_enter_is_fenced,
        executed("alter policy fence on shared.events using (true)"),
    ),
    "row-level security on a new partition": Guard(
        "SQL as the owner",
        a_new_partition_shows_nothing,
        altered("tlsy.ensure_partition", _PARTITION_RLS, ""),
    ),
    "row-level security on a new partition, in the catalogue": Guard(
        "catalogue lint",
        the_linter_is_content,
        executed(_ANY_NEW_PARTITION + "alter table {apart}.events_p202001 disable row level security"),
    ),
}
