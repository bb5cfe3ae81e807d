from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager

import pytest

from tlsy.agent.handlers.deliver import Deliverer
from tlsy.agent.ports import DeliveryError
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.rpc.errors import PermissionDenied, ResourceExhausted, Unavailable

REFUSED = "the server refuses events for good"


def answer(*outcomes, rejections=(), retry_s=None):
    response = pb.IngestEventsResponse(
        outcomes=[pb.Outcome.Value(f"OUTCOME_{outcome}") for outcome in outcomes], rejections=rejections
    )
    if retry_s is not None:
        response.retry_after.FromMilliseconds(round(retry_s * 1000))
    return response


@asynccontextmanager
async def delivering(agent):
    """The agent delivers meanwhile; afterwards it must have come to an end."""
    task = asyncio.create_task(agent.deliver())
    try:
        yield
        async with asyncio.timeout(60):
            await task
    finally:
        task.cancel()


@pytest.mark.parametrize(
    "error",
    [
        ResourceExhausted("RATE_EXCEEDED", "too fast", retry_after_s=7),
        Unavailable("DATABASE_AWAY", "not now", retry_after_s=7),
    ],
)
async def test_a_refused_batch_comes_again_when_the_server_said_and_no_sooner(
    agent, stand_in, fake_clock, asleep, error
):
    stand_in.script = [error]
    agent.collected("1", "2")
    async with delivering(agent):
        await asleep()
        fake_clock.advance(6.9)
        await asyncio.sleep(0)
        assert (fake_clock.sleepers, len(stand_in.batches)) == (1, 1)
        fake_clock.advance(0.1)
    assert stand_in.batches == [["1", "2"]] * 2
    assert agent.waiting() == []


async def test_only_deferred_events_come_again_and_before_those_behind_them(
    agent, stand_in, fake_clock, asleep
):
    stand_in.script = [answer("ACCEPTED", "DEFERRED", "DUPLICATE", "DEFERRED", retry_s=3)]
    agent.collected("1", "2", "3", "4")
    async with delivering(agent):
        await asleep()
        agent.collected("5")
        fake_clock.advance(2.9)
        await asyncio.sleep(0)
        assert (fake_clock.sleepers, len(stand_in.batches)) == (1, 1)
        fake_clock.advance(0.1)
    await agent.deliver()
    assert stand_in.batches == [["1", "2", "3", "4"], ["2", "4"], ["5"]]


async def test_events_refused_for_good_are_counted_and_never_sent_again(agent, stand_in):
    problems = [pb.Rejection(index=1, reason="TIME_TOO_OLD"), pb.Rejection(index=1, reason="TYPE_INVALID")]
    stand_in.script = [answer("ACCEPTED", "REJECTED", rejections=problems)]
    agent.collected("1", "2")
    await agent.deliver()
    agent.collected("3")
    await agent.deliver()
    assert stand_in.batches == [["1", "2"], ["3"]]
    assert (agent.deliverer.delivered, agent.deliverer.rejected) == (2, 1)


async def test_all_that_is_refused_for_good_is_told_in_a_line_per_reason(agent, stand_in, log_lines):
    old = [pb.Rejection(index=n, reason="TIME_TOO_OLD", message=f"of {n}") for n in range(40)]
    both = [pb.Rejection(index=40, reason=name, message=name) for name in ("SITE_INVALID", "TYPE_INVALID")]
    stand_in.script = [answer(*["REJECTED"] * 41, rejections=[*old, *both])]
    agent.collected(*map(str, range(41)))
    await agent.deliver()
    told = {line["reason"]: (line["refused"], line["problem"]) for line in log_lines.of(REFUSED)}
    assert told == {
        "TIME_TOO_OLD": (40, "of 0"),
        "SITE_INVALID": (1, "SITE_INVALID"),
        "TYPE_INVALID": (1, "TYPE_INVALID"),
    }


@pytest.mark.parametrize("outcome", [pb.OUTCOME_UNSPECIFIED, 99])
async def test_an_event_of_which_the_server_does_not_say_that_it_is_stored_comes_again(
    server, stand_in, outcome
):
    stand_in.script = [pb.IngestEventsResponse(outcomes=[pb.OUTCOME_ACCEPTED, outcome])]
    delivered = await server.deliver([pb.Event(id="1"), pb.Event(id="2")])
    assert delivered.deferred == (1,)


@pytest.mark.parametrize("outcomes", [(), ("ACCEPTED",), ("ACCEPTED",) * 3])
async def test_an_answer_that_is_of_another_batch_delivers_nothing(server, stand_in, outcomes):
    stand_in.script = [answer(*outcomes)]
    with pytest.raises(DeliveryError):
        await server.deliver([pb.Event(id="1"), pb.Event(id="2")])


async def test_a_clock_that_is_ahead_is_told_loudly(agent, stand_in, log_lines):
    problems = [pb.Rejection(index=0, reason="TIME_IN_FUTURE")]
    stand_in.script = [answer("REJECTED", rejections=problems)]
    agent.collected("1")
    await agent.deliver()
    (told,) = [line for line in log_lines if line["level"] == "critical"]
    assert "clock is ahead" in told["event"]
    assert told["refused"] == 1


class FailingOnce:
    """A disk that fails at each kind of call for the first time."""

    def __init__(self, buffer):
        self._buffer = buffer
        self._left = {"peek", "acknowledge"}

    def peek(self, *limits):
        self._fail("peek")
        return self._buffer.peek(*limits)

    def acknowledge(self, place):
        self._fail("acknowledge")
        self._buffer.acknowledge(place)

    def append(self, records):
        self._buffer.append(records)

    def _fail(self, call):
        if call in self._left:
            self._left.remove(call)
            raise OSError(errno.ENOSPC, "no room")


async def test_a_disk_that_fails_is_tried_again(agent, server, stand_in, fake_clock, asleep):
    deliverer = Deliverer(FailingOnce(agent.buffer), server, fake_clock, lambda: 0.0, asyncio.Event())
    agent.collected("1")
    task = asyncio.create_task(deliverer.deliver_batch(asyncio.Event()))
    for _ in range(2):
        await asleep()
        fake_clock.advance(1)
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        assert await task
    assert (stand_in.batches, agent.waiting()) == ([["1"]], [])


async def test_while_the_server_is_away_events_wait_and_all_arrive_in_order(
    agent, stand_in, fake_clock, asleep
):
    await stand_in.down()
    agent.collected("1", "2")
    async with delivering(agent):
        for _ in range(4):
            await asleep()
            fake_clock.advance(60)
            await asyncio.sleep(0)
        await asleep()
        agent.collected("3")
        assert agent.waiting() == ["1", "2", "3"]
        await stand_in.up()
        async with asyncio.timeout(60):
            while not stand_in.batches:
                fake_clock.advance(60)
                await asyncio.sleep(0.05)
    await agent.deliver()
    assert stand_in.batches == [["1", "2"], ["3"]]


async def test_one_token_serves_many_batches_and_is_renewed_before_it_ends(agent, stand_in, fake_clock):
    for name in ("1", "2"):
        agent.collected(name)
        await agent.deliver()
    assert stand_in.tokens == 1
    fake_clock.advance(500)
    agent.collected("3")
    await agent.deliver()
    assert stand_in.tokens == 2


async def test_a_token_that_is_refused_is_exchanged_at_once(agent, stand_in):
    stand_in.expired = {"token-1"}
    agent.collected("1")
    await agent.deliver()
    assert (stand_in.tokens, stand_in.batches) == (2, [["1"]])


async def test_after_a_key_that_may_not_send_the_one_in_the_file_then_is_shown(server, stand_in):
    stand_in.script = [PermissionDenied("PERMISSION_MISSING", "no")]
    with pytest.raises(DeliveryError, match="PERMISSION_MISSING"):
        await server.deliver([pb.Event(id="1")])
    await server.deliver([pb.Event(id="1")])
    assert (stand_in.tokens, stand_in.batches) == (2, [["1"], ["1"]])


async def test_a_key_that_is_refused_is_shown_once_and_then_after_a_pause(server, stand_in):
    stand_in.revoked = True
    with pytest.raises(DeliveryError, match="no such key"):
        await server.deliver([pb.Event(id="1")])
    assert stand_in.tokens == 1


async def test_asked_to_stop_while_the_server_is_away_it_leaves_the_events_on_disk(agent, stand_in, asleep):
    await stand_in.down()
    agent.collected("1")
    stopping = asyncio.Event()
    running = asyncio.create_task(agent.deliverer.run(stopping))
    await asleep()
    stopping.set()
    async with asyncio.timeout(60):
        await running
    assert agent.waiting() == ["1"]


async def test_asked_to_stop_it_delivers_what_is_on_disk(agent, stand_in):
    agent.collected(*map(str, range(1200)))
    stopping = asyncio.Event()
    stopping.set()
    async with asyncio.timeout(60):
        await agent.deliverer.run(stopping)
    assert [len(batch) for batch in stand_in.batches] == [500, 500, 200]
    assert agent.waiting() == []
