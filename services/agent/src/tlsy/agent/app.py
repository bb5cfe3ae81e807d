"""Wires the agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tlsy.agent.adapters.buffer import DiskBuffer
from tlsy.agent.adapters.host import HostReader
from tlsy.agent.adapters.ingest import IngestionServer
from tlsy.agent.adapters.readings import HostAndProbes
from tlsy.agent.domain.readings import Origin
from tlsy.agent.handlers.collect import Collector
from tlsy.agent.handlers.deliver import Deliverer
from tlsy.runtime.ids import Uuid7
from tlsy.runtime.service import Part, Supervisor, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.agent.ports import Readings
    from tlsy.agent.settings import Settings
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.service import Service


def build(settings: Settings, clock: Clock, random: Callable[[int], bytes]) -> Service:
    """The agent, ready to start; opens its buffer.

    Collecting stops before delivering, so that the last readings are delivered too.

    Raises:
        BufferInUseError: another agent has the buffer's folder.
        OSError: the buffer's folder cannot be made or read.
    """
    ids = Uuid7(clock, random)
    buffer = DiskBuffer(settings.buffer.directory, settings.buffer.max_bytes)
    server = IngestionServer(settings.endpoints, settings.api_key_file, clock, random)
    collected = asyncio.Event()
    collector = Collector(
        interval_s=settings.interval_s,
        origin=Origin(source=settings.source, site=settings.site, labels=settings.labels),
        readings=readings(settings, clock),
        buffer=buffer,
        clock=clock,
        new_id=lambda: str(ids()),
        collected=collected,
    )
    deliverer = Deliverer(buffer, server, clock, lambda: random(1)[0] / 256, collected)
    return Supervisor(
        "agent",
        [
            Part(server),
            Part(Task("deliverer", deliverer.run), needs=("server",)),
            Part(Task("collector", collector.run), needs=("deliverer",)),
        ],
    )


def readings(settings: Settings, clock: Clock) -> Readings:
    """What the settings ask to read."""
    return HostAndProbes(settings, HostReader(settings.host), clock)
