from __future__ import annotations

import os
import subprocess
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


def test_a_program_that_has_ended_does_not_run_though_nobody_has_asked_how_it_ended(tmp_path):
    """As in a container, whose first process is no init."""
    program = tmp_path / "ends-at-once"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    with subprocess.Popen([program]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(ended.pid).name() == program.name
        readings = HostReader(HostSettings(processes=(program.name,))).read(0.0)
    assert [r.value for r in readings if r.type == "host.process"] == [0]


def test_what_is_not_asked_for_is_not_read():
    off = HostSettings(cpu=False, memory=False, load=False, disks=False, network=False)
    assert HostReader(off).read(0.0) == []


def test_memory_agrees_with_the_kernel():
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    readings = HostReader(HostSettings()).read(0.0)
    (available,) = [r.value or 0 for r in readings if r.subject == "available_bytes"]
    assert 0 < available <= total_kib * 1024


def test_the_first_reading_has_no_figure_of_a_time_that_has_not_passed():
    reader = HostReader(HostSettings())
    first, second = ({r.type for r in reader.read(at_s)} for at_s in (0.0, 1.0))
    assert second - first >= {"host.cpu", "host.network"}


def test_a_disk_is_told_in_percent_with_where_it_is():
    """On a machine without a disk of its own, as in a container, there is none to tell."""
    real = [p for p in psutil.disk_partitions() if p.fstype not in {"squashfs", "overlay"}]
    disks = [r for r in HostReader(HostSettings()).read(0.0) if r.type == "host.disk"]
    assert bool(disks) == bool(real)
    assert all(0 <= (r.value or 0) <= 100 and {"device", "filesystem"} <= r.labels.keys() for r in disks)


def test_a_kind_that_breaks_takes_no_other_with_it():
    reader = HostReader(HostSettings())
    reader.read(0.0)
    kinds = {r.type for r in reader.read(None)}  # type: ignore[arg-type]  # what breaks one kind
    assert "host.network" not in kinds
    assert kinds >= {"host.cpu", "host.memory", "host.load"}
