from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from libs.eventlog.tests.swapped import received
from libs.eventlog.tests.world import CLOCK, TOPIC, event_of, note_of, until
from tlsy.eventlog.broadcast import Broadcast
from tlsy.eventlog.cloudevents import LOG_HEADER
from tlsy.eventlog.errors import RetryableError
from tlsy.eventlog.kafka_readers import KafkaTail


class Copy:
    """What a catalogue in memory would be: notes that were seen, from snapshots and from events."""

    def __init__(self, world):
        self.world = world
        self.snapshots = 0
        self.notes = []
        self.during_snapshot = []
        self.since = {}

    async def snapshot(self):
        self.snapshots += 1
        for event in self.during_snapshot:
            await self.world.send(event)
        self.during_snapshot = []

    def apply(self, event):
        self.notes.append(note_of(event.data))

    def tail(self):
        return KafkaTail(self.world.brokers, [TOPIC], "test", since=self.since)

    def broadcast(self, *, clock=CLOCK, on_demand=False, lost=None):
        return Broadcast(
            "copy",
            tail=self.tail,
            snapshot=self.snapshot,
            apply=self.apply,
            clock=clock,
            jitter=lambda: 0.5,
            metrics=self.world.metrics,
            on_demand=on_demand,
            lost=lost,
        )

    async def has(self, *notes):
        async def condition():
            return self.notes == list(notes)

        await until(condition)


async def test_what_happens_during_the_snapshot_is_seen(world, tenant):
    await world.send(event_of(tenant, "before"))
    copy = Copy(world)
    copy.during_snapshot = [event_of(tenant, "during")]
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await asyncio.wait_for(broadcast.complete(), 60)
    await world.send(event_of(tenant, "after"))
    await copy.has("during", "after")
    assert broadcast.stale_s() < 10


async def test_a_topic_may_be_read_from_before_the_snapshot(world, tenant):
    await world.send(event_of(tenant, "long before"))
    (first,) = await world.records()
    since = datetime.fromtimestamp(first.timestamp / 1000 + 0.002, UTC)

    async def later():
        return CLOCK.now() > since

    await until(later)
    await world.send(event_of(tenant, "before"))
    copy = Copy(world)
    copy.since = {TOPIC: since}
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await copy.has("before")


async def test_a_failed_snapshot_is_taken_again(world, tenant):
    await world.send(event_of(tenant, "before"))

    class FailsOnce(Copy):
        async def snapshot(self):
            await super().snapshot()
            if self.snapshots == 1:
                raise RetryableError("PEER_AWAY", "not yet")

    copy = FailsOnce(world)
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await asyncio.wait_for(broadcast.complete(), 60)
    assert copy.snapshots == 2


async def test_another_broker_means_another_snapshot(world, tenant, broker):
    await world.send(event_of(tenant, "before"))
    copy = Copy(world)
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await asyncio.wait_for(broadcast.complete(), 60)
    await broker.stop()
    await broker.start()
    await world.inspector().ensure_topics({TOPIC: 4})

    async def again():
        return copy.snapshots == 2

    await until(again)
    await world.send(event_of(tenant, "after"))
    await copy.has("after")


async def test_a_broadcast_without_a_broker_is_stale(world, broker):
    await broker.stop()
    world.components.append(broadcast := Copy(world).broadcast())
    await broadcast.start()
    assert broadcast.stale_s() == float("inf")

    async def is_told():
        return world.metrics.broadcast_stale_s.labels("copy")._value.get() == float("inf")

    await until(is_told)
    await broker.start()


async def test_a_record_that_cannot_be_read_is_skipped(world, tenant):
    await world.send(event_of(tenant, "before"))
    copy = Copy(world)
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await asyncio.wait_for(broadcast.complete(), 60)
    await world.send(event_of(tenant, "foreign"), key=b"another")
    await world.send(event_of(tenant, "after"))
    await copy.has("after")


async def test_a_log_that_is_lost_is_told_once_and_followed_again_when_it_is_back(world, tenant, broker):
    await world.inspector().ensure_topics({TOPIC: 4})
    losses: list[datetime] = []
    copy = Copy(world)
    world.components.append(broadcast := copy.broadcast(lost=losses.append))
    await broadcast.start()
    await asyncio.wait_for(broadcast.complete(), 60)
    seen = CLOCK.now()
    await broker.stop()

    async def is_told():
        return losses

    await until(is_told)
    await broker.start()
    await world.inspector().ensure_topics({TOPIC: 4})
    await asyncio.wait_for(broadcast.complete(), 60)
    await world.send(event_of(tenant, "after"))
    await copy.has("after")
    (since,) = losses
    assert abs(since - seen) < timedelta(seconds=10)


class CutLog:
    """Read on from where it was, though the log was cut below that and is longer again."""

    def __init__(self, *fetches):
        self.fetches = list(fetches)

    async def open(self):
        pass

    async def fetch(self, *, max_records, timeout_s):
        await CLOCK.sleep(0.01)
        return self.fetches.pop(0) if self.fetches else []

    async def lost(self):
        return False

    async def close(self):
        pass


async def test_another_incarnation_means_another_snapshot(world, tenant):
    """What is new below the position is passed over, and nothing that the broker says shows it.

    One: relays learn of it one after the other, and their records alternate.
    """
    notes = ("1", "put back", "2", "late", "3")
    before, put_back, after, late, later = (event_of(tenant, note) for note in notes)
    (letter,) = received(1, put_back)
    letter = replace(letter, headers=tuple(each for each in letter.headers if each[0] != LOG_HEADER))
    others = (received(number, event) for number, event in ((2, after), (1, late), (2, later)))
    log = CutLog(received(1, before), [letter], *others)

    class OfCutLog(Copy):
        def tail(self):
            return log

    copy = OfCutLog(world)
    world.components.append(broadcast := copy.broadcast())
    await broadcast.start()
    await copy.has("1", "put back", "late", "3")
    assert copy.snapshots == 2
