from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from libs.rpc.tests.world import ACME, ALICE, OTHER, bearer, refused
from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.billing.events.v1.events_pb2 import UsageRecorded
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.rpc.assembly import _denial_writer
from tlsy.rpc.audit import AuditTrail
from tlsy.rpc.denials import OVERFLOW, Denials, DeniedCalls
from tlsy.rpc.errors import PermissionDenied, RecordedDenial
from tlsy.rpc.tokens import Actor
from tlsy.runtime.ids import PrincipalName, TenantId
from tlsy.testkit.clock import FakeClock

MANY = [TenantId(UUID(int=number)) for number in range(10)]


def denied(principal: str = ALICE, reason: str = "CROSS_TENANT", tenant_id: TenantId = ACME) -> DeniedCalls:
    return DeniedCalls(
        tenant_id=tenant_id,
        home_tenant_id=tenant_id,
        principal=PrincipalName(principal),
        method="tlsy.identity.v1.IdentityService/GetUser",
        reason=reason,
        resource="tenants/other/users/u",
        first_time=datetime(2026, 1, 1, tzinfo=UTC),
        count=1,
    )


class Written:
    def __init__(self) -> None:
        self.batches: list[tuple[DeniedCalls, ...]] = []
        self.away = False

    async def __call__(self, batch) -> None:
        if self.away:
            raise ConnectionError("away")
        self.batches.append(tuple(batch))


@pytest.fixture
def written() -> Written:
    return Written()


async def test_the_same_denial_again_is_counted(written):
    denials = Denials(FakeClock(), written)
    for _ in range(1000):
        denials.denied(denied())
    denials.denied(denied(reason="PERMISSION_MISSING"))
    await denials.flush()
    assert sorted((one.reason, one.count) for one in written.batches[0]) == [
        ("CROSS_TENANT", 1000),
        ("PERMISSION_MISSING", 1),
    ]


async def test_a_flood_of_principals_is_counted_without_their_names(written):
    denials = Denials(FakeClock(), written)
    for number in range(5000):
        denials.denied(denied(f"tenants/acme/users/{number}", tenant_id=MANY[number % 10]))
    await denials.flush()
    (batch,) = written.batches
    assert len(batch) == 1010
    assert sum(one.count for one in batch) == 5000
    assert {one.principal for one in batch[1000:]} == {OVERFLOW}


async def test_a_flood_of_one_tenants_leaves_others_their_names(written):
    denials = Denials(FakeClock(), written)
    for number in range(5000):
        denials.denied(denied(f"tenants/acme/users/{number}"))
    denials.denied(denied("tenants/other/users/u", tenant_id=OTHER))
    await denials.flush()
    (batch,) = written.batches
    assert len(batch) == 252
    assert [one.principal for one in batch if one.tenant_id == OTHER] == ["tenants/other/users/u"]


async def test_what_cannot_be_written_is_kept(written):
    denials = Denials(FakeClock(), written)
    written.away = True
    denials.denied(denied())
    await denials.flush()
    written.away = False
    await denials.flush()
    await denials.flush()
    assert [len(batch) for batch in written.batches] == [1]


async def test_what_cannot_be_written_for_long_is_bounded(written, log_lines):
    clock = FakeClock()
    denials = Denials(clock, written)
    written.away = True
    for minute in range(8):
        for number in range(1000):
            denials.denied(denied(f"tenants/acme/users/{minute}-{number}", tenant_id=MANY[number % 10]))
        await denials.flush()
        clock.advance(60)
    written.away = False
    await denials.flush()
    assert sum(len(batch) for batch in written.batches) == 5000
    assert "denials dropped" in {line["event"] for line in log_lines}


async def test_a_record_that_can_never_be_written_goes_alone(log_lines):
    written, registry = [], CollectorRegistry()

    async def write(batch) -> None:
        if any(one.reason == "BAD" for one in batch):
            raise ValueError("no text")
        written.extend(batch)

    denials = Denials(FakeClock(), write, registry=registry)
    for reason in ("FIRST", "BAD", "LAST"):
        denials.denied(denied(reason=reason))
    await denials.flush()
    assert [one.reason for one in written] == ["FIRST", "LAST"]
    assert registry.get_sample_value("tlsy_rpc_denials_dropped_total") == 1
    assert "denials dropped" in {line["event"] for line in log_lines}
    denials.denied(denied(reason="LATER"))
    await denials.flush()
    assert [one.reason for one in written] == ["FIRST", "LAST", "LATER"]


async def outbox(installation) -> list[AuditRecorded]:
    owner = await installation.connect(None, installation.control)
    rows = await owner.fetch("select data from ingestion.outbox order by seq")
    return [AuditRecorded.FromString(row["data"]) for row in rows]


async def test_no_denial_keeps_the_others_from_the_outbox(world, installation):
    """Of a tenant that is not known any more, and one that is longer than the outbox takes."""
    trail = AuditTrail("ingestion", world.clock, world.host.ids)
    denials = Denials(
        FakeClock(), _denial_writer(installation.tenancy("ingestion"), installation.catalog, trail)
    )
    tenant = await installation.provisioned_tenant()
    good = replace(denied(), tenant_id=tenant.tenant_id, home_tenant_id=tenant.tenant_id)
    for call in (
        denied(reason="TENANT_UNKNOWN"),
        replace(good, reason="BAD", resource="x" * 600_000),
        replace(good, reason="GOOD"),
    ):
        denials.denied(call)
    await denials.flush()
    assert [record.outcome for record in await outbox(installation)] == ["TENANT_UNKNOWN", "GOOD"]
    denials.denied(good)
    await denials.flush()
    assert len(await outbox(installation)) == 3


async def asleep(clock: FakeClock) -> None:
    """Until there is something to write, at the clock's time."""
    async with asyncio.timeout(60):
        while not clock.sleepers:
            await asyncio.sleep(0)


async def turned(clock: FakeClock, seconds: int) -> None:
    """So many turns of one that has something to write, a second each."""
    for _ in range(seconds):
        await asleep(clock)
        clock.advance(1)
        await settled()


async def settled() -> None:
    """Until nothing goes on any more: all of it is in memory."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def running(written):
    clock = FakeClock()
    denials = Denials(clock, written)
    await denials.start()
    yield denials, clock
    await denials.stop(5)


async def test_each_is_written_within_a_second_and_nothing_runs_without_any(running, written):
    denials, clock = running
    for number in (1, 2, 3):
        await settled()
        assert (len(written.batches), clock.sleepers) == (number - 1, 0)
        denials.denied(denied(f"tenants/acme/users/{number}"))
        await turned(clock, 1)
        assert [one.principal[-1] for one in written.batches[-1]] == [str(number)]


async def test_the_same_denial_again_waits_for_the_end_of_the_minute(running, written):
    denials, clock = running
    for _ in range(130):
        for _ in range(10):
            denials.denied(denied())
        await turned(clock, 1)
    assert [[one.count for one in batch] for batch in written.batches] == [[10], [590], [600]]


async def test_a_flood_of_principals_is_named_in_part_every_minute(running, written):
    denials, clock = running
    for second in range(59):
        for number in range(100):
            denials.denied(denied(f"tenants/acme/users/{second}-{number}"))
        await turned(clock, 1)
    await denials.flush()
    records = [one for batch in written.batches for one in batch]
    assert sum(one.count for one in records) == 5900
    assert len(records) <= 252


async def test_the_end_of_a_minute_makes_room_although_nothing_was_written_since(running, written):
    denials, clock = running
    for number in range(1000):
        denials.denied(denied(f"tenants/acme/users/{number}"))
    await turned(clock, 1)
    clock.advance(60)
    denials.denied(denied("tenants/acme/users/later"))
    await turned(clock, 1)
    assert [one.principal for one in written.batches[-1]] == ["tenants/acme/users/later"]


async def test_what_is_there_is_written_at_the_end(running, written):
    denials, clock = running
    denials.denied(denied())
    await turned(clock, 1)
    denials.denied(denied())
    await denials.stop(5)
    assert [[one.count for one in batch] for batch in written.batches] == [[1], [1]]


async def test_a_database_that_is_away_is_asked_ever_less_often(running, written):
    denials, clock = running
    written.away = True
    denials.denied(denied())
    for wait_s in (1, 2, 4, 8, 10, 10):
        await asleep(clock)
        clock.advance(wait_s)
        await settled()
    written.away = False
    await asleep(clock)
    clock.advance(9)
    await settled()
    assert written.batches == []
    clock.advance(1)
    await settled()
    assert [len(batch) for batch in written.batches] == [1]
    denials.denied(denied("tenants/acme/users/next"))
    await turned(clock, 1)
    assert len(written.batches) == 2


def test_a_denial_becomes_an_audit_record(world):
    trail = AuditTrail("identity", FakeClock(), world.host.ids)
    event = trail.denied(denied(), epoch=3)
    record = AuditRecorded.FromString(event.data)
    assert event.type == "tlsy.identity.audit.recorded.v1"
    assert (event.tenant_id, event.epoch, event.key, record.tenant_id) == (ACME, 3, ACME.hex, str(ACME))
    assert (record.outcome, record.count, record.resource) == ("CROSS_TENANT", 1, "tenants/other/users/u")
    assert (record.principal, record.principal_tenant_id) == (ALICE, "")


def test_the_record_of_a_denial_says_whose_the_refused_one_is(world):
    event = AuditTrail("identity", FakeClock(), world.host.ids).denied(
        replace(denied(), home_tenant_id=OTHER), epoch=3
    )
    assert AuditRecorded.FromString(event.data).principal_tenant_id == str(OTHER)


async def test_an_effect_is_recorded_with_who_did_it(world, client):
    token = world.token("client-admin", actor=Actor(OTHER, ALICE))
    await client.identity.GetUser(
        identity.GetUserRequest(name="tenants/acme/users/u"),
        metadata=(*bearer(token), ("x-request-id", "r-1")),
    )
    trail = AuditTrail("identity", world.clock, world.host.ids)
    call = world.identity.calls[0]
    event = trail.recorded(call, resource="tenants/acme/users/u", tenant_id=ACME, epoch=3, details={"n": 1})
    record = AuditRecorded.FromString(event.data)
    assert (record.method, record.principal, record.request_id) == (call.method, ALICE, "r-1")
    assert (record.tenant_id, record.principal_tenant_id) == (str(ACME), str(OTHER))
    assert (record.outcome, record.count, record.details["n"]) == ("OK", 1, 1)
    assert (event.tenant_id, event.epoch, event.key) == (ACME, 3, ACME.hex)
    assert record.record_id == str(event.id)


def test_usage_is_a_fact_of_its_own(world):
    event = AuditTrail("ingestion", FakeClock(), world.host.ids).usage(ACME, 3, "events.accepted", 500)
    fact = UsageRecorded.FromString(event.data)
    assert event.type == "tlsy.ingestion.usage.recorded.v1"
    assert (event.tenant_id, event.epoch, event.key) == (ACME, 3, ACME.hex)
    assert (fact.meter, fact.quantity, fact.tenant_id) == ("events.accepted", 500, str(ACME))


async def test_a_name_in_a_refused_request_is_kept_in_part_only(world, client):
    request = identity.GetUserRequest(name="tenants/other/" + "x" * 400_000)
    await refused(client.identity.GetUser(request, metadata=bearer(world.token("viewer"))))
    assert len(world.denials.calls[0].resource) == 256


async def test_what_a_handler_refuses_is_audited_once(world, client):
    async def refuse() -> None:
        raise PermissionDenied("ROLE_ABOVE_CALLER", "Nobody gives what they do not have.")

    world.identity.act = refuse
    request = identity.GetUserRequest(name="tenants/acme/users/u")
    await refused(client.identity.GetUser(request, metadata=bearer(world.token("client-admin"))))
    (told,) = world.denials.calls
    assert (told.reason, told.principal, told.resource) == ("ROLE_ABOVE_CALLER", ALICE, request.name)
    await refused(client.identity.GetUser(request, metadata=bearer(world.token("auditor"))))
    assert [call.reason for call in world.denials.calls[1:]] == ["PERMISSION_MISSING"]


async def test_what_a_handler_has_told_itself_is_not_told_again(world, client):
    async def refuse() -> None:
        raise RecordedDenial("NOT_AN_ANCESTOR", "No.")

    world.identity.act = refuse
    request = identity.ExchangeTokenRequest(target_tenant="tenants/other", reason="x")
    token = bearer(world.token("client-admin"))
    error = await refused(client.identity.ExchangeToken(request, metadata=token))
    assert (type(error), error.reason) == (PermissionDenied, "NOT_AN_ANCESTOR")
    assert world.denials.calls == []


async def test_what_is_refused_without_a_principal_is_not_audited(world, client):
    async def refuse() -> None:
        raise PermissionDenied("CLOSED", "No.")

    world.identity.act = refuse
    await refused(client.identity.LogIn(identity.LogInRequest(tenant="tenants/acme", email="a@b")))
    assert world.denials.calls == []
