"""This host's real figures, by psutil. All calls block: they run in a thread."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

import psutil
import structlog

from tlsy.agent.domain.readings import Reading, Severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.agent.settings import HostSettings

_log = structlog.get_logger(__name__)
#: Kinds of mounts that are no disks of this host.
_PSEUDO: Final = frozenset({"squashfs", "tmpfs", "devtmpfs", "overlay", "nsfs", "autofs"})


class HostReader:
    """Reads what the settings ask for.

    CPU and network figures are of the time since the reading before: the first reading has none of them.
    """

    def __init__(self, settings: HostSettings) -> None:
        self._settings = settings
        self._network: tuple[float, int, int] | None = None
        self._cpu_began = False
        self._failing: set[str] = set()

    def read(self, monotonic_s: float) -> list[Reading]:
        """Everything at once; a kind that this host does not give is left out and logged once."""
        chosen = self._settings
        kinds: tuple[tuple[str, object, Callable[[], list[Reading]]], ...] = (
            ("cpu", chosen.cpu, self._cpu),
            ("memory", chosen.memory, self._memory),
            ("load", chosen.load, self._load),
            ("disks", chosen.disks, self._disks),
            ("network", chosen.network, partial(self._network_rates, monotonic_s)),
            ("processes", chosen.processes, self._processes),
        )
        readings: list[Reading] = []
        for kind, wanted, read in kinds:
            if not wanted:
                continue
            try:
                readings += read()
            except Exception as error:  # noqa: BLE001 - whatever psutil raises says nothing of the other kinds
                if kind not in self._failing:
                    _log.warning("this host does not give a figure", kind=kind, error=repr(error))
                self._failing.add(kind)
            else:
                self._failing.discard(kind)
        return readings

    def _cpu(self) -> list[Reading]:
        percent, began = psutil.cpu_percent(interval=None), self._cpu_began
        self._cpu_began = True
        return [Reading(type="host.cpu", subject="all", value=percent)] if began else []

    @staticmethod
    def _load() -> list[Reading]:
        return [
            Reading(type="host.load", subject=f"{minutes}m", value=value)
            for minutes, value in zip((1, 5, 15), psutil.getloadavg(), strict=True)
        ]

    @staticmethod
    def _memory() -> list[Reading]:
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        readings = [
            Reading(type="host.memory", subject="used_percent", value=memory.percent),
            Reading(type="host.memory", subject="available_bytes", value=float(memory.available)),
        ]
        if swap.total:
            readings.append(Reading(type="host.memory", subject="swap_percent", value=swap.percent))
        return readings

    @staticmethod
    def _disks() -> list[Reading]:
        readings, seen = [], set()
        for part in psutil.disk_partitions(all=False):
            if part.fstype in _PSEUDO or part.device in seen:
                continue
            seen.add(part.device)
            try:
                usage = psutil.disk_usage(part.mountpoint)
            except OSError:
                # A mount that went away or that this user may not look at says nothing of the others.
                continue
            labels = {"device": part.device, "filesystem": part.fstype}
            readings.append(
                Reading(type="host.disk", subject=part.mountpoint, value=usage.percent, labels=labels)
            )
        return readings

    def _network_rates(self, monotonic_s: float) -> list[Reading]:
        counters = psutil.net_io_counters()
        if counters is None:
            return []
        before, now = self._network, (monotonic_s, counters.bytes_recv, counters.bytes_sent)
        self._network = now
        if before is None or now[0] <= before[0]:
            return []
        passed_s = now[0] - before[0]
        return [
            Reading(type="host.network", subject=subject, value=max(0, now[i] - before[i]) / passed_s)
            for i, subject in ((1, "received_bytes_per_s"), (2, "sent_bytes_per_s"))
        ]

    def _processes(self) -> list[Reading]:
        running = Counter(
            p.info["name"]
            for p in psutil.process_iter(["name", "status"])
            # What has ended is there until its parent asks for it.
            if p.info["status"] != psutil.STATUS_ZOMBIE
        )
        return [
            Reading(
                type="host.process",
                subject=name,
                value=float(running[name]),
                severity=Severity.INFO if running[name] else Severity.ERROR,
            )
            for name in self._settings.processes
        ]
