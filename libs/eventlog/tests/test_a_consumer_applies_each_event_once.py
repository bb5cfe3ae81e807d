from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from libs.eventlog.tests.world import CLOCK, GROUP, TOPIC, event_of, note_down, note_of, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.dead_letters import DeadLetters
from tlsy.eventlog.delivery import Batch, Direct, Each
from tlsy.eventlog.errors import FinalError, LogUnavailable, RetryableError
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7

DLQ = f"{TOPIC}.{GROUP}.dlq"


async def dead_letters(world, count):
    inspector = world.inspector()

    async def written():
        return sum((await inspector.end_offsets(DLQ)).values()) >= count

    await until(written)
    return await world.records(DLQ)


async def test_a_record_that_comes_twice_has_one_effect(world, tenant):
    twice, after = event_of(tenant, "twice"), event_of(tenant, "after")
    await world.send(twice, twice, after)
    await world.consuming()
    await world.noted(tenant, "twice", "after")
    assert world.metrics.duplicates.labels(GROUP)._value.get() == 1


async def test_a_consumer_killed_before_its_commit_applies_on_return(world, tenant):
    entered = asyncio.Event()

    async def hang(delivery, tx):
        await note_down(delivery, tx)
        entered.set()
        await asyncio.Event().wait()

    await world.send(event_of(tenant, "a"))
    doomed = await world.consuming({EVENTS_ACCEPTED: Each(hang)}, revoke_timeout_s=0.1)
    await asyncio.wait_for(entered.wait(), 60)
    await doomed.stop(0.2)
    assert await world.entries(tenant) == []
    await world.consuming()
    await world.noted(tenant, "a")


class NeverCommits(KafkaGroupReader):
    async def commit(self, offsets):
        raise LogUnavailable("died before the offset was committed")


async def test_a_consumer_killed_between_effect_and_offset_counts_once(world, tenant):
    await world.send(event_of(tenant, "a"))
    doomed = await world.consuming(reader=lambda: NeverCommits(world.brokers, GROUP, [TOPIC], "doomed"))
    await world.noted(tenant, "a")
    await doomed.stop(2.0)
    await world.consuming()
    await world.send(event_of(tenant, "b"))
    await world.noted(tenant, "a", "b")
    assert world.metrics.duplicates.labels(GROUP)._value.get() == 1


async def test_a_retryable_failure_is_tried_again(world, tenant):
    attempts = []

    async def succeed_third(delivery, tx):
        attempts.append(delivery.attempt)
        if delivery.attempt < 3:
            raise RetryableError("NOT_YET", "soon")
        await note_down(delivery, tx)

    await world.send(event_of(tenant, "a"))
    await world.consuming({EVENTS_ACCEPTED: Each(succeed_third)})
    await world.noted(tenant, "a")
    assert attempts == [1, 2, 3]


async def refuse_bad(delivery, tx):
    if delivery.message.events[0].id.startswith("bad"):
        raise FinalError("BAD_NOTE", "not that one")
    await note_down(delivery, tx)


async def test_a_final_failure_goes_to_the_dead_letters_with_its_reasons(world, tenant):
    await world.send(event_of(tenant, "bad"), event_of(tenant, "good"))
    await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)})
    await world.noted(tenant, "good")
    (letter,) = await dead_letters(world, 1)
    headers = dict(letter.headers)
    assert note_of(letter.value) == "bad"
    assert headers["dlq-reason"] == b"BAD_NOTE"
    assert headers["dlq-error-class"] == b"tlsy.eventlog.errors.FinalError"
    assert headers["dlq-attempt"] == b"1"
    assert headers["dlq-topic"] == TOPIC.encode()
    assert headers["dlq-offset"] == b"0"
    assert headers["tenantid"] == str(tenant.tenant_id).encode()


async def test_retries_that_never_succeed_end_in_the_dead_letters(world, tenant):
    async def never(delivery, tx):
        raise RetryableError("NOT_YET", "soon")

    await world.send(event_of(tenant, "a"))
    await world.consuming({EVENTS_ACCEPTED: Each(never)})
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-attempt"] == b"3"


class FlakyLetters(DeadLetters):
    """Dead letters whose topic cannot be written 30 times."""

    failures = 30

    async def write(self, record, error, attempt):
        if self.failures:
            self.failures -= 1
            raise LogUnavailable("not now")
        await super().write(record, error, attempt)


async def test_a_letter_that_cannot_be_written_is_no_second_refusal(world, tenant):
    await world.send(event_of(tenant, "bad"), event_of(tenant, "good"))
    letters = FlakyLetters(GROUP, world.producer(), world.inspector(), CLOCK)
    await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)}, dead_letters=letters)
    await world.noted(tenant, "good")
    assert len(await dead_letters(world, 1)) == 1


async def test_a_record_that_claims_another_tenant_is_refused(world, tenant, dedicated):
    claimed = event_of(tenant, "stolen")
    await world.send(claimed, key=dedicated.tenant_id.hex.encode())
    await world.consuming()
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-reason"] == b"MALFORMED_RECORD"
    assert await world.entries(tenant) == []


async def test_a_record_of_a_service_that_does_not_own_the_topic_is_refused(world, tenant):
    await world.send(replace(event_of(tenant, "a"), source="identity"))
    await world.consuming()
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-reason"] == b"FOREIGN_SOURCE"


class LongAgo(SystemClock):
    def now(self):
        return CLOCK.now() - timedelta(days=10)


async def test_an_event_older_than_the_inbox_is_refused(world, tenant):
    old = replace(event_of(tenant, "old"), id=Uuid7(LongAgo(), bytes)())
    await world.send(old, event_of(tenant, "new"))
    await world.consuming()
    await world.noted(tenant, "new")
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-reason"] == b"TOO_OLD"


async def test_types_without_a_handler_are_skipped_and_counted(world, tenant):
    other = event_of(tenant, "x", kind="tlsy.ingestion.usage.recorded.v1")
    await world.send(other, event_of(tenant, "a"))
    await world.consuming()
    await world.noted(tenant, "a")
    assert world.metrics.skipped.labels(GROUP)._value.get() == 1


async def test_an_event_of_an_unknown_tenant_is_refused_after_retries(world, tenant):
    stranger = replace(tenant, tenant_id=tenant.tenant_id.__class__(int=tenant.tenant_id.int ^ 1))
    await world.send(event_of(stranger, "a"))
    await world.consuming()
    (letter,) = await dead_letters(world, 1)
    assert dict(letter.headers)["dlq-reason"] == b"UNKNOWN_TENANT"


async def test_too_many_refusals_stop_the_partition_where_it_is(world, tenant):
    await world.outboxes().open_topic_log(TOPIC, "cluster")
    await world.send(*(event_of(tenant, f"bad{n}") for n in range(30)))
    stopped = await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)})
    await until(lambda: _stopped(stopped))
    await stopped.stop(2.0)
    await world.consuming()
    await world.noted(tenant, *(f"bad{n}" for n in range(20, 30)))
    assert len(await dead_letters(world, 20)) == 20


async def test_joining_again_gives_no_more_letters(world, tenant):
    await world.send(*(event_of(tenant, f"bad{n}") for n in range(60)))
    stopped = await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)})
    await until(lambda: _stopped(stopped))
    before = max(_epochs(stopped))
    stopped._broken.set()
    await until(lambda: _rejoined_and_stopped(stopped, before))
    assert len(await dead_letters(world, 20)) == 20


def _epochs(consumer):
    return [assigned.worker._applier._epoch for assigned in consumer._assigned.values() if assigned.worker]


async def _rejoined_and_stopped(consumer, before):
    epochs = _epochs(consumer)
    return len(epochs) == 4 and min(epochs) > before and consumer.stopped_partitions()


async def _stopped(consumer):
    return consumer.stopped_partitions()


async def test_another_partition_goes_on_when_one_is_stopped(world, installation):
    tenants = [await installation.provisioned_tenant() for _ in range(8)]
    bad = tenants[0]
    await world.send(*(event_of(bad, f"bad{n}") for n in range(30)))
    consumer = await world.consuming({EVENTS_ACCEPTED: Each(refuse_bad)})
    await until(lambda: _stopped(consumer))
    await world.send(*(event_of(tenant, "a") for tenant in tenants[1:]))
    await until(lambda: _some_noted(world, tenants[1:]))


async def _some_noted(world, tenants):
    return [tenant for tenant in tenants if await world.entries(tenant)]


async def test_a_batch_is_one_transaction_of_one_tenant_in_order(world, tenant, dedicated):
    sizes = []

    async def together(deliveries, tx):
        sizes.append(len({d.event.tenant_id for d in deliveries}))
        for delivery in deliveries:
            await note_down(delivery, tx)

    notes = [str(number) for number in range(30)]
    events = [event_of(whose, note) for note in notes for whose in (tenant, dedicated)]
    await world.send(*events)
    await world.consuming({EVENTS_ACCEPTED: Batch(together, limit=10)})
    await world.noted(tenant, *notes)
    await world.noted(dedicated, *notes)
    assert set(sizes) == {1}
    assert len(sizes) < 30


async def test_a_batch_refuses_only_what_is_wrong(world, tenant):
    async def together(deliveries, tx):
        for delivery in deliveries:
            await refuse_bad(delivery, tx)

    await world.send(*(event_of(tenant, note) for note in ("a", "bad", "b")))
    await world.consuming({EVENTS_ACCEPTED: Batch(together)})
    await world.noted(tenant, "a", "b")
    assert len(await dead_letters(world, 1)) == 1


async def test_a_direct_handler_has_no_transaction(world, tenant):
    seen = []

    async def direct(delivery):
        seen.append(delivery.message.events[0].id)

    await world.send(event_of(tenant, "a"))
    await world.consuming({EVENTS_ACCEPTED: Direct(direct)})

    async def arrived():
        return seen

    await until(arrived)
    assert seen == ["a"]


async def test_nothing_is_read_before_the_consumer_is_ready(world, tenant):
    gate, asked = asyncio.Event(), asyncio.Event()

    async def ready():
        asked.set()
        await gate.wait()

    await world.send(event_of(tenant, "a"))
    consumer = await world.consuming(ready=ready)
    await asyncio.wait_for(asked.wait(), 60)
    assert consumer._reader is None
    gate.set()
    await world.noted(tenant, "a")


async def test_a_broken_consumer_says_so(world):
    class Broken:
        async def ensure_topics(self, topics, others):
            raise ZeroDivisionError

    consumer = await world.consuming(dead_letters=Broken())
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(consumer.wait(), 60)


async def test_a_broken_partition_breaks_the_consumer(world):
    class Broken:
        async def on_assigned(self, partition, epoch):
            raise ZeroDivisionError

        async def on_revoked(self, partition):
            pass

    consumer = await world.consuming(ownership=Broken(), makes={TOPIC: 1})
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(consumer.wait(), 60)


async def test_a_consumer_without_a_topic_stops_at_once(world):
    consumer = await world.consuming()
    loop = asyncio.get_running_loop()

    async def joining():
        return consumer._reader is not None

    await until(joining)
    begun = loop.time()
    await consumer.stop(30.0)
    assert loop.time() - begun < 10


async def test_a_topic_without_a_relay_is_made_again_on_an_empty_broker(world, broker):
    await world.consuming(makes={TOPIC: 3})
    inspector = world.inspector()

    async def made():
        try:
            return len(await inspector.end_offsets(TOPIC)) == 3
        except LogUnavailable:
            return False

    await until(made)
    await broker.stop()
    await broker.start()
    await until(made, 60.0)
