from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import cycle
from typing import TYPE_CHECKING, Final

from tlsy.contracts.events import SERVICES
from tlsy.tenancy.context import IsolationMode

from .books import ONBOARDED, books_once
from .load import Sender, counted, marks
from .suites import process_settings, suite_in_process, world_of
from .world import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.testkit.installation import Installation

    from .world import Tenant, World

_NUMBERS: Final = 300
_PAUSE_S: Final = 0.02
_SOURCES: Final = ("gate-a", "gate-b")
_COUNTED: Final = len(_SOURCES) * counted(_NUMBERS)


async def test_a_replica_of_each_service_dies_under_load(installation: Installation, brokers: str) -> None:
    async with suite_in_process(installation, brokers) as (suite, world):
        settings = process_settings(suite)
        processes = await asyncio.gather(
            *(suite.start_process(service, settings[service]) for service in SERVICES)
        )
        tenants = [await world.tenant(f"firm-{mode.lower()}", mode) for mode in IsolationMode]
        await asyncio.gather(*(world.publish_rules(tenant, _COUNTED) for tenant in tenants))
        async with aclosing(world_of(suite, 1, tenants)) as dying:
            senders = [_sender((world, dying), tenant, source) for tenant in tenants for source in _SOURCES]
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for sender in senders:
                    group.create_task(sender.send(range(_NUMBERS), pause_s=_PAUSE_S))
                await until(lambda: _half_way(senders))
                for process in processes:
                    process.kill()
        assert all(sender.acknowledged == set(range(_NUMBERS)) for sender in senders)
        assert any(sender.refused for sender in senders)
        await world.tenant("late", IsolationMode.SHARED)
        await asyncio.gather(*(_reconcile(world, tenant) for tenant in tenants))


def _sender(worlds: Sequence[World], tenant: Tenant, source: str) -> Sender:
    """Each call goes to the other replica."""
    turns = cycle(worlds)
    return Sender(tenant.slug, source, worlds[0].began_us, lambda: next(turns).agent(tenant.slug))


async def _half_way(senders: Sequence[Sender]) -> bool:
    return all(len(sender.acknowledged) >= _NUMBERS // 2 for sender in senders)


async def _reconcile(world: World, tenant: Tenant) -> None:
    accepted = len(_SOURCES) * _NUMBERS
    await books_once(world.place(tenant), accepted)
    await world.counted_exactly(tenant, _COUNTED, range(_NUMBERS + 1, _NUMBERS + 2))
    books = await books_once(world.place(tenant), accepted + 1)
    books.reconcile(accepted + 1)
    assert books.audited == ONBOARDED
    assert books.incidents["marked", "RESOLVED"] == len(_SOURCES) * marks(_NUMBERS)
