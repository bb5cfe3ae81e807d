from __future__ import annotations

from libs.eventlog.tests.world import TOPIC, event_of, until
from tlsy.eventlog.delivery import decode_event
from tlsy.eventlog.errors import LogUnavailable


class Waiting:
    """Decodes once it may; meanwhile the partition stands still."""

    def __init__(self):
        self.may = False
        self.refused = 0

    async def decode(self, record):
        if not self.may:
            self.refused += 1
            raise LogUnavailable("not yet")
        return decode_event(record)

    async def refused_again(self, times):
        before = self.refused

        async def condition():
            return self.refused >= before + times

        await until(condition)


async def test_ten_minutes_of_standing_still_are_no_end(world, tenant):
    await world.inspector().ensure_topics({TOPIC: 1})
    waiting = Waiting()
    consumer = await world.consuming(decode=waiting.decode)
    await world.send(event_of(tenant, "a"))
    await waiting.refused_again(1)
    # As if nothing had been fetched for so long; then three heartbeats of its session.
    consumer._reader._client._subscription._last_fetch_ended -= 600
    await waiting.refused_again(20)
    waiting.may = True
    await world.noted(tenant, "a")
    await world.send(event_of(tenant, "b"))
    await world.noted(tenant, "a", "b")
