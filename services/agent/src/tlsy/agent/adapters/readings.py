"""Everything the settings ask for, read at once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from tlsy.agent.adapters.background import Background
from tlsy.agent.adapters.probes import probe_http, probe_tcp, probe_tls

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tlsy.agent.adapters.host import HostReader
    from tlsy.agent.domain.readings import Reading
    from tlsy.agent.settings import Settings
    from tlsy.runtime.clock import Clock

_log = structlog.get_logger(__name__)
#: A host that needs longer for its own figures hangs, e.g. at a network disk that is away.
_HOST_S: Final = 5.0


class HostAndProbes:
    """Reads the host in a thread while the probes run side by side; as slow as the slowest probe.

    None depends on another: what fails in a way that nobody thought of, or hangs, is left out and logged.
    """

    def __init__(self, settings: Settings, host: HostReader, clock: Clock) -> None:
        self._settings = settings
        self._host = host
        self._clock = clock
        self._background = Background()

    async def read(self) -> list[Reading]:
        """Everything once."""
        settings, now, background = self._settings, self._clock.now(), self._background
        probes: list[Awaitable[Reading]] = [
            *(probe_tcp(probe, background) for probe in settings.tcp),
            *(probe_http(probe, background) for probe in settings.http),
            *(probe_tls(probe, now, background) for probe in settings.tls),
        ]
        of_host, *of_probes = await asyncio.gather(self._read_host(), *probes, return_exceptions=True)
        readings: list[Reading] = []
        for found in (*(of_host if isinstance(of_host, list) else [of_host]), *of_probes):
            if isinstance(found, BaseException):
                _log.error("a reading is left out", error=repr(found))
            else:
                readings.append(found)
        return readings

    async def _read_host(self) -> list[Reading]:
        async with asyncio.timeout(_HOST_S):
            return await self._background.run("host", partial(self._host.read, self._clock.monotonic()))
