"""A log of one partition that tests cut, swap and forget, and readers of it."""

from __future__ import annotations

from libs.eventlog.tests.world import CLOCK, TOPIC, until
from tlsy.eventlog.cloudevents import to_headers
from tlsy.eventlog.ports import Received, TopicPartition


class SwappedLog:
    """What a broker holds: records in order, what the group committed, and had when it went back."""

    def __init__(self, topic=TOPIC):
        self.topic = topic
        self.records = []
        self.oldest = 0
        self.committed = None
        self.joined = 0
        self.rewound = 0
        self.committed_before = None

    def reader(self):
        self.joined += 1
        return SwappedReader(self)


class SwappedReader:
    """Reads on by offset, whatever became of the log."""

    def __init__(self, log):
        self._log = log
        self._position = log.committed or 0

    async def start(self, on_assigned, on_revoked):
        await on_assigned([TopicPartition(topic=self._log.topic, partition=0)])

    async def fetch(self, partition, *, max_records, timeout_s):
        await CLOCK.sleep(0.01)
        found = [record for record in self._log.records if record.offset >= self._position][:max_records]
        if found:
            self._position = found[-1].offset + 1
        return found

    async def ends(self, topic):
        return {0: len(self._log.records)}

    async def starts(self, topic):
        return {0: self._log.oldest}

    async def oldest(self, partition):
        return self._log.oldest

    async def rewind(self, partition):
        self._log.rewound += 1
        self._log.committed_before = self._log.committed
        self._position = 0

    async def commit(self, offsets):
        self._log.committed = next(iter(offsets.values()))

    async def committed(self, partition):
        return self._log.committed

    async def lag(self):
        return {}

    async def stop(self):
        pass


def received(log, *events, first=0, topic=TOPIC):
    """Records of incarnation `log`, from offset `first`."""
    return [
        Received(
            topic=topic,
            partition=0,
            offset=offset,
            time=CLOCK.now(),
            key=event.key.encode(),
            value=event.data,
            headers=to_headers(event, log=log),
        )
        for offset, event in enumerate(events, first)
    ]


async def watermark(world, at_least):
    """Wait until the groups' watermarks add up to so much."""
    connection = await world.installation.connect(None, world.installation.control)

    async def reached():
        return await connection.fetchval(
            "select coalesce(sum(next_offset), 0) >= $1 from tlsy.consumer_watermark", at_least
        )

    await until(reached)
