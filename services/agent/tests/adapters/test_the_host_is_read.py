from __future__ import annotations

from pathlib import Path

import psutil

from tlsy.agent.adapters.host import HostReader
from tlsy.agent.settings import HostSettings


def test_every_kind_that_is_asked_for_is_read():
    me = psutil.Process().name()
    reader = HostReader(HostSettings(processes=(me, "no-such-program")))
    reader.read(0.0)
    readings = reader.read(1.0)
    assert {"host.cpu", "host.memory", "host.load", "host.network", "host.process"} <= {
        r.type for r in readings
    }
    running = {r.subject: r.value or 0 for r in readings if r.type == "host.process"}
    assert running[me] >= 1
    assert running["no-such-program"] == 0


def test_what_is_not_asked_for_is_not_read():
    off = HostSettings(cpu=False, memory=False, load=False, disks=False, network=False)
    assert HostReader(off).read(0.0) == []


def test_memory_agrees_with_the_kernel():
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    readings = HostReader(HostSettings()).read(0.0)
    (available,) = [r.value or 0 for r in readings if r.subject == "available_bytes"]
    assert 0 < available <= total_kib * 1024
