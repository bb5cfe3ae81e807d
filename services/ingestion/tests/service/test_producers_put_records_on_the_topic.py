from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tlsy.contracts.events import INGEST_TOPIC
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.tenancy.context import PLATFORM

MODULES = frozenset({"supervision"})
#: A record with an event that goes on behind its end.
UNREADABLE = b"\x0a\x03\x0a\x01"
DEAD = f"{INGEST_TOPIC}.ingestion.dlq"


@pytest.fixture
def codec():
    return None


@pytest.fixture
async def produce(world, codec):
    """Puts a record on the producers' topic, as anybody who can reach the broker may."""
    producer = AIOKafkaProducer(bootstrap_servers=world.brokers, compression_type=codec)
    await producer.start()

    async def put(token, events, key=b"k", *, value=None, headers=(), timestamp_ms=None, times=1):
        if value is None:
            value = events_pb2.ProducedEvents(events=events).SerializeToString()
        headers = [*([("authorization", f"Bearer {token}".encode())] if token else []), *headers]
        for _ in range(times):
            sent = await producer.send(
                INGEST_TOPIC, value, key=key, headers=headers, timestamp_ms=timestamp_ms
            )
        await sent

    yield put
    await producer.stop()


@asynccontextmanager
async def dead_letters(world):
    consumer = AIOKafkaConsumer(DEAD, bootstrap_servers=world.brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def count(world, tenant):
    async with world.installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        return await tx.fetchval("select count(*) from events")


async def parked(world, wanted):
    """Wait until as many records are parked."""
    async with asyncio.timeout(60):
        while True:
            async with world.installation.tenancy("ingestion").control(PLATFORM, write=False) as tx:
                if await tx.fetchval("select count(*) from ingestion.parked_record") == wanted:
                    return
            await asyncio.sleep(0.02)


async def answered_a_while_ago(host):
    """What the registry said of its tenants is too old for an answer to who asks for one now."""
    async with asyncio.timeout(60):
        while host.telemetry.registry.get_sample_value("tlsy_catalog_age_seconds") < 0.5:
            await asyncio.sleep(0.02)


async def reaches(world, tenant, wanted):
    async with asyncio.timeout(60):
        while await count(world, tenant) != wanted:
            await asyncio.sleep(0.02)


async def outcomes(world, host, tenant, wanted):
    """What the tenant reads of its records, once there is as much as wanted."""
    stub = world.stub(host, tenant, "viewer")
    async with asyncio.timeout(60):
        while True:
            told = await stub.ListIngestOutcomes(
                pb.ListIngestOutcomesRequest(parent=f"tenants/{tenant.slug}")
            )
            if len(told.outcomes) >= wanted:
                return list(told.outcomes)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_a_record_is_stored_for_the_tenant_of_its_token(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    await produce(world.around.token(tenant, "agent"), make_events(7))
    await reaches(world, tenant, 7)


async def test_only_its_token_says_who_sent_a_record(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    forged = [("ce_principal", b"services/identity"), ("ce_requestid", b"forged"), ("traceparent", b"x")]
    await produce(world.around.token(tenant, "agent"), make_events(1), headers=forged)
    await reaches(world, tenant, 1)
    owner = await world.installation.connect(None, tenant.placement)
    rows = await owner.fetch("select principal, correlation_id, traceparent from ingestion.outbox")
    assert {row["correlation_id"].rpartition(":")[0].rpartition(":")[0] for row in rows} == {INGEST_TOPIC}
    key = f"tenants/{tenant.slug}/apiKeys/{tenant.tenant_id}"
    assert {(row["principal"], row["traceparent"]) for row in rows} == {(key, "")}


async def read_from_the_start(world):
    """A replica dies before it has committed what it did, and another reads it again."""
    await world.replicas.pop().stop(5)
    group = AIOKafkaConsumer(bootstrap_servers=world.brokers, group_id="ingestion", enable_auto_commit=False)
    await group.start()
    partitions = [TopicPartition(INGEST_TOPIC, number) for number in range(12)]
    group.assign(partitions)
    await group.commit(dict.fromkeys(partitions, 0))
    await group.stop()
    return await world.replica()


async def test_a_record_that_is_read_again_is_neither_counted_nor_told_of_again(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    token = world.around.token(tenant, "agent")
    await produce(token, [*make_events(3), *make_events(1, source="")])
    await produce(token, make_events(2, first=10))
    await produce(token, (), value=UNREADABLE)
    assert len(await outcomes(world, host, tenant, 2)) == 2
    host = await read_from_the_start(world)
    await produce(token, make_events(1, first=20))
    await reaches(world, tenant, 6)
    told = await outcomes(world, host, tenant, 2)
    assert [(o.offset, o.accepted, o.duplicates) for o in told] == [(2, 0, 0), (0, 3, 0)]
    async with world.installation.tenancy("ingestion").transaction(tenant.context, write=False) as tx:
        sums = "select sum(batches), sum(accepted), sum(duplicates), sum(rejected) from ingest_minutes"
        assert tuple(await tx.fetchrow(sums)) == (3, 6, 0, 1)


async def test_events_that_come_again_in_another_record_change_nothing(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    token, events = world.around.token(tenant, "agent"), make_events(3)
    for _ in range(3):
        await produce(token, events)
    await produce(token, make_events(1, first=50))
    await reaches(world, tenant, 4)
    told = await world.stub(host, tenant, "viewer").ListIngestOutcomes(
        pb.ListIngestOutcomesRequest(parent=f"tenants/{tenant.slug}")
    )
    assert [(o.accepted, o.duplicates) for o in told.outcomes] == [(0, 3), (0, 3)]


@pytest.mark.parametrize(
    ("make_token", "reason"),
    [
        (lambda world, tenant: "", "TOKEN_MISSING"),
        (lambda world, tenant: "not.a.token", "TOKEN_MALFORMED"),
        (lambda world, tenant: world.around.token(tenant, "agent", lifetime_s=-120), "TOKEN_EXPIRED"),
        (lambda world, tenant: world.around.token(tenant, "agent", audience=("identity",)), "TOKEN_AUDIENCE"),
        (lambda world, tenant: world.around.token(tenant, "viewer"), "PERMISSION_MISSING"),
    ],
)
async def test_a_record_without_credentials_is_a_dead_letter(world, produce, make_events, make_token, reason):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    await produce(make_token(world, tenant), make_events(2))
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == reason.encode()
    assert await count(world, tenant) == 0


@pytest.mark.parametrize("waited_s", [720])
async def test_a_token_that_was_good_when_its_record_came_is_good_when_it_is_read(
    world, produce, make_events, waited_s
):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    await produce(world.around.token(tenant, "agent", lifetime_s=-waited_s + 60), make_events(2))
    await reaches(world, tenant, 2)


@pytest.mark.parametrize(
    ("waited_s", "lifetime_s", "timestamp_ms"),
    [
        # Expired before it came; so old that its revocation may be forgotten; said to be old by its producer.
        (720, -780, None),
        (7_200, -3_660, None),
        (0, -120, 1_000),
    ],
)
async def test_a_late_record_s_token_is_refused(
    world, produce, make_events, waited_s, lifetime_s, timestamp_ms
):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    token = world.around.token(tenant, "agent", lifetime_s=lifetime_s)
    await produce(token, make_events(2), timestamp_ms=timestamp_ms)
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"TOKEN_EXPIRED"


async def test_where_a_topic_has_not_the_broker_s_time_a_producer_s_time_is_not_believed(
    world, produce, make_events
):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    admin = AIOKafkaAdminClient(bootstrap_servers=world.brokers)
    await admin.start()
    await admin.create_topics([NewTopic(INGEST_TOPIC, num_partitions=1, replication_factor=1)])
    await admin.close()
    await world.replica()
    expired, good = (world.around.token(tenant, "agent", lifetime_s=life_s) for life_s in (-60, 600))
    await produce(expired, make_events(2), timestamp_ms=int((time.time() - 120) * 1_000))
    await produce(good, make_events(1, first=50), timestamp_ms=1_000)
    await reaches(world, tenant, 1)
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"TOKEN_EXPIRED"


@pytest.mark.parametrize("waited_s", [720])
async def test_a_late_record_s_token_that_was_revoked_meanwhile_is_refused(
    world, produce, make_events, waited_s
):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    principal = f"tenants/{tenant.slug}/apiKeys/{UUID(int=3)}"
    world.around.revoke(tenant, principal)
    await world.replica()
    await produce(world.around.token(tenant, "agent", principal=principal, lifetime_s=-60), make_events(2))
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"TOKEN_REVOKED"


async def test_records_without_credentials_stop_nobody(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    await produce("", make_events(1), times=500)
    await produce(world.around.token(tenant, "agent"), make_events(3))
    await reaches(world, tenant, 3)
    assert world.replicas[0].ready()


async def test_records_that_cannot_be_read_stop_nobody(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    token = world.around.token(tenant, "agent")
    await produce(token, (), value=UNREADABLE, times=30)
    await produce(token, make_events(3))
    await reaches(world, tenant, 3)
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"UNREADABLE_DATA"


@pytest.mark.parametrize("timestamp_ms", [0, 1_000, 10**15, 2**62])
async def test_whatever_time_a_producer_puts_on_a_record_its_events_are_stored(
    world, produce, make_events, timestamp_ms
):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    events = [*make_events(2), *make_events(1, source="")]
    await produce(world.around.token(tenant, "agent"), events, timestamp_ms=timestamp_ms)
    await reaches(world, tenant, 2)
    (outcome,) = await outcomes(world, host, tenant, 1)
    assert abs(outcome.record_time.seconds - time.time()) < 60


async def test_a_record_for_a_tenant_without_the_module_is_a_dead_letter(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=frozenset())
    await world.replica()
    await produce(world.around.token(tenant, "agent"), make_events(2))
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"MODULE_DISABLED"


async def test_a_record_of_the_provider_is_a_dead_letter_once_the_tenant_lets_it_in_no_more(
    world, produce, make_events
):
    tenants = [
        await world.installation.provisioned_tenant(modules=MODULES, provider_access=access)
        for access in ("NONE", "FULL")
    ]
    await world.replica()
    for tenant in tenants:
        token = world.around.token(tenant, "client-admin", principal="tenants/platform/users/u")
        await produce(token, make_events(2))
    await reaches(world, tenants[1], 2)
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"PROVIDER_ACCESS_DENIED"
    assert await count(world, tenants[0]) == 0


async def test_a_record_of_a_tenant_without_producers_is_a_dead_letter_and_told_to_it(
    world, produce, make_events
):
    tenant = await world.installation.provisioned_tenant(modules=MODULES, entitlements={"kafka_producers": 0})
    host = await world.replica()
    await produce(world.around.token(tenant, "agent"), make_events(2))
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"KAFKA_PRODUCERS_NOT_ENTITLED"
    (told,) = await outcomes(world, host, tenant, 1)
    assert [(r.index, r.reason) for r in told.rejections] == [(-1, "KAFKA_PRODUCERS_NOT_ENTITLED")]
    assert "kafka_producers" in told.rejections[0].message
    assert await count(world, tenant) == 0


async def test_a_record_that_is_refused_as_a_whole_is_told_to_its_tenant(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    other = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    token = world.around.token(tenant, "agent")
    await produce(token, make_events(10_001, labels={}, value=1))
    await produce(token, (), value=UNREADABLE)
    await produce(token, (), value=b"\x0a\x00\xff")
    *unreadable, too_many = await outcomes(world, host, tenant, 3)
    assert [(r.index, r.reason) for r in too_many.rejections] == [(-1, "TOO_MANY_EVENTS")]
    for told in unreadable:
        assert [(r.index, r.reason) for r in told.rejections] == [(-1, "UNREADABLE_DATA")]
        assert "ProducedEvents" in told.rejections[0].message
        assert "Encoded" not in told.rejections[0].message
        assert told.rejections[0].field in told.rejections[0].message
    assert {told.rejections[0].field for told in unreadable} == {"events[0]", "events[1]"}
    assert not await outcomes(world, host, other, 0)


async def test_a_record_of_a_tenant_that_is_gone_is_a_dead_letter_and_holds_up_nobody(
    world, produce, make_events
):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    gone = replace(tenant, tenant_id=UUID(int=7))
    await produce(world.around.token(gone, "agent"), make_events(1))
    await produce(world.around.token(tenant, "agent"), make_events(2))
    async with dead_letters(world) as letters, asyncio.timeout(60):
        letter = await letters.getone()
    assert dict(letter.headers)["dlq-reason"] == b"TENANT_UNKNOWN"
    await reaches(world, tenant, 2)


async def test_records_of_a_tenant_that_this_release_cannot_read_wait_for_one_that_can(
    world, produce, make_events
):
    later, other = [await world.installation.provisioned_tenant(modules=MODULES) for _ in range(2)]
    world.installation.catalog.unreadable.add(later.tenant_id)
    await world.replica()
    await produce(world.around.token(later, "agent"), make_events(2))
    await produce(world.around.token(other, "agent"), make_events(1))
    await reaches(world, other, 1)
    await parked(world, 1)
    await world.replicas.pop().stop(5)
    world.installation.catalog.unreadable.clear()
    await world.replica()
    await reaches(world, later, 2)


async def test_records_of_a_tenant_that_nobody_can_be_asked_for_are_decided_when_its_owner_is_back(
    world, produce, make_events
):
    new, deleted, other = [await world.installation.provisioned_tenant(modules=MODULES) for _ in range(3)]
    catalog = world.installation.catalog
    for unknown in (new, deleted):
        catalog.forget(unknown.tenant_id)
    host = await world.replica()
    catalog.away = True
    await answered_a_while_ago(host)
    for number in range(10):
        await produce(world.around.token(new, "agent"), make_events(1, first=number))
    await produce(world.around.token(deleted, "agent"), make_events(1))
    await produce(world.around.token(other, "agent"), make_events(1))
    await reaches(world, other, 1)
    await parked(world, 11)
    catalog.put(new)
    catalog.away = False
    await reaches(world, new, 10)
    await parked(world, 0)
    assert await count(world, deleted) == 0


async def test_nothing_in_a_record_but_its_token_says_whose_it_is(world, produce, make_events):
    mine = await world.installation.provisioned_tenant(modules=MODULES)
    theirs = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    claim = {"tenantid": str(theirs.tenant_id), "tenant": theirs.slug}
    await produce(
        world.around.token(mine, "agent"), make_events(2, labels=claim), key=theirs.tenant_id.hex.encode()
    )
    await reaches(world, mine, 2)
    assert await count(world, theirs) == 0


async def test_what_is_refused_of_a_record_can_be_read(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    await produce(world.around.token(tenant, "agent"), [*make_events(2), *make_events(1, source="")])
    await reaches(world, tenant, 2)
    stub = world.stub(host, tenant, "viewer")
    told = await stub.ListIngestOutcomes(pb.ListIngestOutcomesRequest(parent=f"tenants/{tenant.slug}"))
    (outcome,) = told.outcomes
    assert (outcome.accepted, outcome.rejected) == (2, 1)
    assert [(r.index, r.reason) for r in outcome.rejections] == [(2, "SOURCE_INVALID")]


async def test_an_event_that_cannot_be_read_is_refused_of_a_record_alone(world, produce, make_events):
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    before, after = (
        events_pb2.ProducedEvents(events=make_events(2, first=n)).SerializeToString() for n in (0, 5)
    )
    await produce(world.around.token(tenant, "agent"), (), value=before + b"\x0a\x03\x0a\x01\xff" + after)
    await reaches(world, tenant, 4)
    (outcome,) = await outcomes(world, host, tenant, 1)
    assert (outcome.accepted, outcome.rejected) == (4, 1)
    assert [(r.index, r.reason) for r in outcome.rejections] == [(2, "EVENT_UNREADABLE")]


async def test_whatever_is_wrong_with_an_event_is_kept_to_be_told(world, produce, make_events):
    """What the database cannot hold of it would cost the events beside it, and the partition at last."""
    tenant = await world.installation.provisioned_tenant(modules=MODULES)
    host = await world.replica()
    bad = {"id": "a\0b", "labels": {"a\0b": "a\0b"}, "data": b'{"a\\u0000b":"\\u0000"}', "type": "a\0b"}
    await produce(world.around.token(tenant, "agent"), [*make_events(2), *make_events(1, **bad)])
    (told,) = await outcomes(world, host, tenant, 1)
    reasons = ["ID_INVALID", "TYPE_INVALID", "LABEL_INVALID", "LABEL_INVALID", "DATA_INVALID"]
    assert [(r.index, r.reason) for r in told.rejections] == [(2, reason) for reason in reasons]
    assert await count(world, tenant) == 2


async def test_a_tenant_over_its_rate_waits_alone_and_loses_nothing(world, produce, make_events):
    slow = await world.installation.provisioned_tenant(
        modules=MODULES, entitlements={"ingest_events_per_s": 20}
    )
    other = await world.installation.provisioned_tenant(modules=MODULES)
    await world.replica()
    for batch in range(4):
        await produce(world.around.token(slow, "agent"), make_events(20, first=100 * batch))
    await produce(world.around.token(other, "agent"), make_events(5))
    await reaches(world, other, 5)
    await reaches(world, slow, 80)
