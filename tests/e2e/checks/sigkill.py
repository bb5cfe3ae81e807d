"""Everything is killed at random moments, and nothing acknowledged is lost or counts twice."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from tests.e2e.books import ONBOARDED, books_once
from tests.e2e.load import counted, marks
from tests.e2e.world import until
from tlsy.tenancy.context import IsolationMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.load import Sender
    from tests.e2e.world import Tenant, World

_SEED: Final = 4_711
_SOURCES: Final = ("gate-a", "gate-b")
_NUMBERS: Final = 300
_PAUSE_S: Final = 0.05
_COUNTED: Final = len(_SOURCES) * counted(_NUMBERS)


class Suite(Protocol):
    """All services, and whatever dies with them."""

    async def kill(self) -> None:
        """SIGKILL: what it has in memory is gone."""

    async def start(self) -> None:
        """Starts it again; returns at once."""

    async def back(self, world: World) -> None:
        """Returns once it is ready, and the world knows where."""


async def nothing_acknowledged_is_lost_and_nothing_counts_twice(
    world: World, suite: Suite, kills: int
) -> None:
    tenants = [
        await world.tenant("shop", IsolationMode.SHARED),
        await world.tenant("bank", IsolationMode.DEDICATED),
    ]
    await asyncio.gather(*(world.publish_rules(tenant, _COUNTED) for tenant in tenants))
    senders = [world.sender(tenant, source) for tenant in tenants for source in _SOURCES]
    gone = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for sender in senders:
            group.create_task(sender.send(range(_NUMBERS), pause_s=_PAUSE_S, gone=gone))
        await _kill_at_random(suite, world, senders, kills, gone)
    assert all(sender.acknowledged == set(range(_NUMBERS)) for sender in senders)
    assert all(sender.refused for sender in senders)
    await asyncio.gather(*(_reconcile(world, tenant) for tenant in tenants))


async def _kill_at_random(
    suite: Suite, world: World, senders: Sequence[Sender], kills: int, gone: asyncio.Event
) -> None:
    """Somewhere in each part of the load but the last, and once while it starts again."""
    moments = random.Random(_SEED)
    total = len(senders) * _NUMBERS
    for kill in range(kills):
        wanted = total * moments.uniform(kill + 0.1, kill + 0.9) / (kills + 1)
        await until(partial(_acknowledged, senders, wanted))
        await suite.kill()
        if kill == kills - 1:
            gone.set()
        await suite.start()
        if kill == kills - 1:
            await asyncio.sleep(moments.uniform(0.5, 3.0))
            await suite.kill()
            await suite.start()
        await suite.back(world)


async def _acknowledged(senders: Sequence[Sender], wanted: float) -> bool:
    return sum(len(sender.acknowledged) for sender in senders) >= wanted


async def _reconcile(world: World, tenant: Tenant) -> None:
    accepted = len(_SOURCES) * _NUMBERS
    books = await books_once(world.place(tenant), accepted)
    await until(lambda: world.has(tenant, "all", 1))
    await world.counted_exactly(tenant, _COUNTED, range(_NUMBERS + 1, _NUMBERS + 2))
    books = await books_once(world.place(tenant), accepted + 1)
    books.reconcile(accepted + 1)
    # Its people log in again where the suite listens now.
    assert {**books.audited, "LogIn": 1} == ONBOARDED
    assert books.incidents == {
        ("marked", "RESOLVED"): len(_SOURCES) * marks(_NUMBERS),
        ("all", "OPEN"): 1,
        ("more", "OPEN"): 1,
    }
