from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import PrincipalName, Uuid7
from tlsy.tenancy.context import PLATFORM, IsolationMode, Placement
from tlsy.tenancy.database import Databases, PoolLimits, transaction
from tlsy.tenancy.errors import PlacementUnavailable, RequestIdReused, StaleEpoch
from tlsy.tenancy.provisioning import DesiredState
from tlsy.tenancy.unit_of_work import IdempotentRequest, Tenancy, uuid7_day
from tlsy.testkit.clock import FakeClock
from tlsy.testkit.installation import CLUSTER
from tlsy.testkit.wire import counted

NOW = datetime.now(UTC)
ONE = PoolLimits(total=1, per_database=1)


def new_id() -> UUID:
    return Uuid7(SystemClock(), lambda n: b"\x05" * n)()


def event_of(tenant, data: bytes = b"x", event_id: UUID | None = None) -> CloudEvent:
    return CloudEvent(
        id=event_id or new_id(),
        type="tlsy.web-shop.order.placed.v1",
        source="web-shop",
        tenant_id=tenant.tenant_id,
        epoch=tenant.epoch,
        time=NOW,
        key=tenant.tenant_id.hex,
        data=data,
    )


def request_of(request_id: UUID, body: bytes = b"body", now: datetime = NOW) -> IdempotentRequest:
    return IdempotentRequest(
        principal=PrincipalName("users/1"),
        method="/shop/Order",
        request_id=request_id,
        body_hash=hashlib.sha256(body).digest(),
        now=now,
        expires_at=now + timedelta(hours=24),
    )


async def outbox_of(installation, entry) -> list[bytes]:
    owner = await installation.connect(None, entry.placement)
    rows = await owner.fetch("select data from web_shop.outbox order by seq")
    return [row["data"] for row in rows]


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_rows_are_read_back_in_every_mode(installation, mode):
    tenant = await installation.provisioned_tenant(mode)
    shop = installation.tenancy("web_shop")
    async with shop.transaction(tenant.context, write=True) as tx:
        await tx.execute("insert into orders values ($1, 1, 'ours')", tenant.tenant_id)
    async with shop.transaction(tenant.context, write=False) as tx:
        rows = await tx.fetch("select note from orders order by order_id")
    assert [row["note"] for row in rows] == ["welcome", "ours"]


async def test_tenants_of_all_modes_interleaved_on_one_connection_see_only_their_own(installation):
    tenants = [await installation.provisioned_tenant(mode) for mode in list(IsolationMode)[:2] * 3]
    shop = installation.tenancy("web_shop", ONE)

    async def visit(tenant, number):
        async with shop.transaction(tenant.context, write=True) as tx:
            await tx.execute("insert into orders values ($1, $2, 'n')", tenant.tenant_id, number)
            return {row["tenant_id"] for row in await tx.fetch("select tenant_id from orders")}

    visits = [(tenant, number) for number in range(1, 9) for tenant in tenants]
    seen = await asyncio.gather(*(visit(*each) for each in visits))
    assert seen == [{tenant.tenant_id} for tenant, _ in visits]


async def test_context_takes_no_round_trip_of_its_own(installation, postgres_server):
    tenant = await installation.provisioned_tenant()
    with counted(postgres_server.address("tlsy_web_shop")) as wire:
        databases = Databases({"local": wire.address}, ONE, SystemClock())
        shop = Tenancy(
            package="web_shop",
            databases=databases,
            catalog=installation.catalog,
            control=installation.control,
        )
        async with databases.acquire(installation.common) as connection:
            wire.clear()
            async with connection.transaction():
                await connection.execute("select 1")
            bare = wire.trips
        wire.clear()
        async with shop.transaction(tenant.context, write=True) as tx:
            await tx.execute("select 1")
        entered, texts = wire.trips, list(wire.texts)
        await databases.close()
    assert (entered, bare) == (3, 3)
    assert texts[0].startswith("begin ")
    assert "tlsy.enter(" in texts[0]
    assert texts[1:] == ["select 1", "commit"]


async def test_a_read_transaction_cannot_write(installation):
    tenant = await installation.provisioned_tenant()
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        async with installation.tenancy("web_shop").transaction(tenant.context, write=False) as tx:
            await tx.execute("delete from orders")


async def test_what_raises_leaves_neither_rows_nor_events(installation):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop")

    async def fail(tx):
        await tx.execute("delete from orders")
        tx.publish(event_of(tenant))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shop.run(tenant.tenant_id, fail, write=True)
    async with shop.transaction(tenant.context, write=False) as tx:
        assert await tx.fetchval("select count(*) from orders") == 1
    assert await outbox_of(installation, tenant) == []


async def test_who_swallows_an_error_of_the_database_is_not_told_of_a_commit(installation):
    tenant = await installation.provisioned_tenant()

    async def inside():
        async with installation.tenancy("web_shop").transaction(tenant.context, write=True) as tx:
            with suppress(asyncpg.PostgresError):
                await tx.execute("select 1/0")

    async def outside():
        relay = installation.databases("tlsy_relay", ONE)
        async with relay.acquire(installation.common) as connection, transaction(connection):
            with suppress(asyncpg.PostgresError):
                await connection.execute("select 1/0")

    for work in (inside, outside):
        with pytest.raises(RuntimeError, match="swallowed"):
            await work()


async def test_what_is_undone_leaves_neither_rows_nor_events(installation):
    tenant = await installation.provisioned_tenant()
    request = request_of(uuid4())
    async with installation.tenancy("web_shop").transaction(tenant.context, write=True) as tx:
        tx.publish(event_of(tenant, b"before"))
        await tx.set_savepoint()
        await tx.execute("delete from orders")
        tx.publish(event_of(tenant, b"undone"))
        assert await tx.replay(request) is None
        await tx.undo()
        assert await tx.fetchval("select count(*) from orders") == 1
        tx.publish(event_of(tenant, b"after"))
    assert await outbox_of(installation, tenant) == [b"before", b"after"]


async def test_a_tenant_that_is_not_migrated_yet_is_tried_again(installation):
    tenant = await installation.provisioned_tenant(IsolationMode.DEDICATED)
    owner = await installation.connect("tlsy_migrator", tenant.placement)
    await owner.execute("set role tlsy_owner; alter table web_shop.outbox drop column principal")
    shop = installation.tenancy("web_shop")
    with pytest.raises(PlacementUnavailable, match="not migrated"):
        async with shop.transaction(tenant.context, write=True) as tx:
            tx.publish(event_of(tenant))
    await owner.execute("alter table web_shop.outbox add column principal varchar(256) not null default ''")
    async with shop.transaction(tenant.context, write=True) as tx:
        tx.publish(event_of(tenant, b"again"))
    assert await outbox_of(installation, tenant) == [b"again"]


async def test_events_are_in_the_outbox_in_the_order_of_their_publication(installation):
    tenant = await installation.provisioned_tenant()
    make_id = Uuid7(SystemClock(), lambda n: b"\x05" * n)
    async with installation.tenancy("web_shop").transaction(tenant.context, write=True) as tx:
        for number in range(20):
            tx.publish(event_of(tenant, b"%d" % number, make_id()))
    assert await outbox_of(installation, tenant) == [b"%d" % number for number in range(20)]


async def test_another_tenants_event_is_refused(installation):
    ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
    async with installation.tenancy("web_shop").transaction(ours.context, write=True) as tx:
        with pytest.raises(ValueError, match="another tenant"):
            tx.publish(event_of(theirs))


@pytest.mark.parametrize(("sweep_after_s", "woken"), [(0, 1), (5, 0)])
async def test_the_relay_is_woken_unless_the_publisher_sends_itself(installation, sweep_after_s, woken):
    tenant = await installation.provisioned_tenant()
    relay = await installation.connect("tlsy_relay", installation.common)
    heard = []
    await relay.add_listener("tlsy_outbox_web_shop", lambda *_: heard.append(1))
    async with installation.tenancy("web_shop").transaction(tenant.context, write=True) as tx:
        tx.publish(event_of(tenant), sweep_after_s=sweep_after_s)
    await relay.fetchval("select 1")  # notifications come before the answer
    await relay.fetchval("select 1")
    assert len(heard) == woken
    await relay.remove_listener("tlsy_outbox_web_shop", heard.append)


@pytest.mark.parametrize("pooled", [False, True])
async def test_through_a_pooler_a_commit_wakes_its_own_process_and_notifies_nobody(
    installation, postgres_server, pooled
):
    tenant = await installation.provisioned_tenant()
    woken: list[Placement] = []
    heard: list[int] = []
    listeners = [await installation.connect(None, p) for p in (installation.control, tenant.placement)]
    for listener in listeners:
        await listener.add_listener("tlsy_outbox_web_shop", lambda *_: heard.append(1))
    address = replace(postgres_server.address("tlsy_web_shop"), pooled=pooled)
    databases = Databases({CLUSTER: address}, PoolLimits(), SystemClock())
    catalog, control = installation.catalog, installation.control
    shop = Tenancy(
        package="web_shop", databases=databases, catalog=catalog, control=control, wake=woken.append
    )
    async with shop.transaction(tenant.context, write=True) as tx:
        tx.publish(event_of(tenant))
    async with shop.control(PLATFORM, write=True) as tx:
        tx.publish(event_of(tenant))
    for listener in (*listeners, *listeners):
        await listener.fetchval("select 1")  # notifications come before the answer
    assert (woken, len(heard)) == (([tenant.placement, control], 0) if pooled else ([], 2))
    await databases.close()


async def test_the_relay_reads_and_marks_every_tenants_events_and_nothing_else(installation):
    ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
    for tenant in (ours, theirs):
        async with installation.tenancy("web_shop").transaction(tenant.context, write=True) as tx:
            tx.publish(event_of(tenant))
    relay = await installation.connect("tlsy_relay", installation.common)
    assert await relay.fetchval("select count(*) from web_shop.outbox") == 2
    assert await relay.execute("update web_shop.outbox set published_at = now()") == "UPDATE 2"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await relay.execute("update web_shop.outbox set data = ''")


async def test_a_delivery_is_first_once(installation):
    tenant, event_id = await installation.provisioned_tenant(), new_id()
    shop = installation.tenancy("web_shop")
    first = []
    for group in ("rules", "rules", "audit"):
        async with shop.transaction(tenant.context, write=True) as tx:
            first.append(await tx.first_delivery(group, event_id))
    assert first == [True, False, True]


async def test_a_repeated_request_gets_the_stored_answer(installation):
    tenant, request = await installation.provisioned_tenant(), request_of(uuid4())
    shop = installation.tenancy("web_shop")
    async with shop.transaction(tenant.context, write=True) as tx:
        assert await tx.replay(request) is None
        tx.remember(b"answer")
    async with shop.transaction(tenant.context, write=True) as tx:
        assert await tx.replay(request) == b"answer"


async def test_a_request_id_with_another_body_is_refused(installation):
    tenant, request_id = await installation.provisioned_tenant(), uuid4()
    shop = installation.tenancy("web_shop")
    async with shop.transaction(tenant.context, write=True) as tx:
        await tx.replay(request_of(request_id))
        tx.remember(b"answer")
    with pytest.raises(RequestIdReused):
        async with shop.transaction(tenant.context, write=True) as tx:
            await tx.replay(request_of(request_id, b"another body"))


@pytest.mark.parametrize("other", ["tenant", "principal", "method"])
async def test_a_request_id_is_of_one_principal_and_method_of_one_tenant(installation, other):
    ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
    first, shop = request_of(uuid4()), installation.tenancy("web_shop")
    second = {
        "tenant": first,
        "principal": replace(first, principal=PrincipalName("users/2")),
        "method": replace(first, method="/shop/Cancel"),
    }[other]
    whose = theirs if other == "tenant" else ours
    for tenant, request, answer in ((ours, first, b"first"), (whose, second, b"second")):
        async with shop.transaction(tenant.context, write=True) as tx:
            assert await tx.replay(request) is None
            tx.remember(answer)
    async with shop.transaction(ours.context, write=True) as tx:
        assert await tx.replay(first) == b"first"


async def test_an_expired_request_id_is_free_again(installation):
    tenant, request_id = await installation.provisioned_tenant(), uuid4()
    shop = installation.tenancy("web_shop")
    for body, now in ((b"1", NOW), (b"2", NOW + timedelta(hours=25))):
        async with shop.transaction(tenant.context, write=True) as tx:
            assert await tx.replay(request_of(request_id, body, now)) is None
            tx.remember(body)


async def test_two_of_one_request_at_once_have_one_effect(installation):
    tenant, request = await installation.provisioned_tenant(), request_of(uuid4())
    shop = installation.tenancy("web_shop")

    async def order():
        async with shop.transaction(tenant.context, write=True) as tx:
            stored = await tx.replay(request)
            if stored is None:
                stored = str(uuid4()).encode()
                await tx.execute("update orders set note = note || '!'")
                tx.remember(stored)
            return stored

    answers = await asyncio.gather(*(order() for _ in range(6)))
    async with shop.transaction(tenant.context, write=False) as tx:
        assert (len(set(answers)), await tx.fetchval("select note from orders")) == (1, "welcome!")


async def test_a_claimed_request_without_an_answer_is_not_committed(installation):
    tenant = await installation.provisioned_tenant()
    with pytest.raises(ValueError, match="not remembered"):
        async with installation.tenancy("web_shop").transaction(tenant.context, write=True) as tx:
            await tx.replay(request_of(uuid4()))


async def test_the_platform_scope_sees_all_tenants_and_a_tenant_only_its_own(installation):
    ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
    shop = installation.tenancy("web_shop")
    for tenant in (ours, theirs):
        async with shop.control(tenant.context, write=True) as tx:
            await tx.execute("insert into prices values ($1, 'pen', 100)", tenant.tenant_id)
    async with shop.control(PLATFORM, write=True) as tx:
        assert await tx.execute("update prices set cents = cents + 1") == "UPDATE 2"
        tx.publish(event_of(ours))
    async with shop.control(ours.context, write=False) as tx:
        assert [row["tenant_id"] for row in await tx.fetch("select * from prices")] == [ours.tenant_id]


async def test_a_stale_placement_is_resolved_again_once(installation):
    tenant = await installation.provisioned_tenant()
    await installation.converge(replace(tenant, epoch=2), DesiredState.ACTIVE)
    installation.catalog.put_behind(replace(tenant, epoch=2))
    shop = installation.tenancy("web_shop")
    count = await shop.run(
        tenant.tenant_id, lambda tx: tx.fetchval("select count(*) from orders"), write=True
    )
    assert (count, installation.catalog.refreshed) == (1, [tenant.tenant_id])


async def test_a_placement_that_stays_stale_is_an_error(installation):
    tenant = await installation.provisioned_tenant()
    await installation.converge(replace(tenant, epoch=2), DesiredState.ACTIVE)
    with pytest.raises(StaleEpoch):
        await installation.tenancy("web_shop").run(
            tenant.tenant_id, lambda tx: tx.fetchval("select 1"), write=False
        )


async def test_a_statement_cached_before_a_migration_is_run_again(installation):
    tenant = await installation.provisioned_tenant()
    shop = installation.tenancy("web_shop", ONE)
    query = "select * from orders"
    await shop.run(tenant.tenant_id, lambda tx: tx.fetch(query), write=False)
    owner = await installation.connect(None, installation.common)
    await owner.execute("alter table shared.orders add column colour text")
    rows = await shop.run(tenant.tenant_id, lambda tx: tx.fetch(query), write=False)
    assert "colour" in rows[0]


async def test_a_text_is_one_statement_for_all_modes_on_one_connection(installation):
    """search_path differs from transaction to transaction; the prepared statement must follow it."""
    shared, own = [await installation.provisioned_tenant(mode) for mode in list(IsolationMode)[:2]]
    shop = installation.tenancy("web_shop", ONE)
    for tenant in (shared, own, shared, own):
        async with shop.transaction(tenant.context, write=True) as tx:
            assert await tx.fetchval("select tenant_id from orders") == tenant.tenant_id


def test_the_day_of_an_event_is_in_its_id():
    made = Uuid7(FakeClock(datetime(2026, 3, 1, 23, 59, tzinfo=UTC)), bytes)()
    assert uuid7_day(made).isoformat() == "2026-03-01"


def test_an_id_without_time_has_no_day():
    with pytest.raises(ValueError, match="UUIDv7"):
        uuid7_day(uuid4())
