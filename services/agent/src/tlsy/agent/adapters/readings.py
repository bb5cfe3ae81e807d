"""Everything the settings ask for, read at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tlsy.agent.adapters.probes import probe_http, probe_tcp, probe_tls

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tlsy.agent.adapters.host import HostReader
    from tlsy.agent.domain.readings import Reading
    from tlsy.agent.settings import Settings
    from tlsy.runtime.clock import Clock


class HostAndProbes:
    """Reads the host in a thread while the probes run side by side; as slow as the slowest probe."""

    def __init__(self, settings: Settings, host: HostReader, clock: Clock) -> None:
        self._settings = settings
        self._host = host
        self._clock = clock

    async def read(self) -> list[Reading]:
        """Everything once."""
        settings, now = self._settings, self._clock.now()
        probes: list[Awaitable[Reading]] = [
            *(probe_tcp(probe) for probe in settings.tcp),
            *(probe_http(probe) for probe in settings.http),
            *(probe_tls(probe, now) for probe in settings.tls),
        ]
        reading_host = asyncio.to_thread(self._host.read, self._clock.monotonic())
        of_host, of_probes = await asyncio.gather(reading_host, asyncio.gather(*probes))
        return [*of_host, *of_probes]
