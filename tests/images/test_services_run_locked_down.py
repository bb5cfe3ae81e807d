"""What a cluster's strictest policy allows is all that a service needs."""

from __future__ import annotations

import time

import pytest

from .containers import serves, until
from .settings import AGENT_BUFFER, GRACE_S, SERVICES

pytestmark = pytest.mark.docker

PROBE = ["python3", "-m", "tlsy.rpc.probe"]


@pytest.fixture(scope="module")
def suite(containers):
    containers.start_all()
    return containers


def buffers(agent):
    listing = f"import os; print(sum(len(files) for *_, files in os.walk({AGENT_BUFFER!r})))"
    listed = agent.exec_run(["python3", "-c", listing])
    return listed.exit_code == 0 and int(listed.output) > 0


@pytest.mark.parametrize("service", SERVICES)
def test_its_own_probe_says_what_others_are_told(suite, service):
    assert serves(suite.running[service])
    answer = suite.running[service].exec_run(PROBE)
    assert (answer.exit_code, answer.output) == (0, b"SERVING\n")


@pytest.mark.parametrize("service", SERVICES)
def test_it_has_neither_root_nor_capabilities(suite, service):
    read = "import pathlib; print(pathlib.Path('/proc/1/status').read_text())"
    told = suite.running[service].exec_run(["python3", "-c", read]).output.decode()
    status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65532"] * 4
    assert {int(status[kind], 16) for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}


@pytest.mark.parametrize("service", SERVICES)
def test_it_cannot_change_its_root(suite, service):
    write = suite.running[service].exec_run(["python3", "-c", "open('/app/x', 'w')"])
    assert b"Read-only file system" in write.output


@pytest.mark.parametrize("service", SERVICES)
def test_it_stops_within_its_grace_and_starts_again(suite, service):
    container = suite.running[service]
    began_s = time.monotonic()
    container.stop(timeout=GRACE_S + 10)
    assert time.monotonic() - began_s <= GRACE_S
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0
    container.start()
    until(serves, container)


def test_who_provisions_has_the_migrations_of_every_service(suite):
    read = "from tlsy.tenancy.migrations import installed; print(*(each.service for each in installed()))"
    told = suite.running["tenant-registry"].exec_run(["python3", "-c", read])
    assert told.output.decode().split() == sorted(SERVICES)


@pytest.mark.parametrize("role", ["api", "worker"])
def test_it_takes_a_role(suite, role):
    replica = suite.start("ingestion", role=role, name=f"ingestion-{role}")
    until(serves, replica)
    assert replica.attrs["Args"] == ["/app", "--role", role]


def test_the_agent_reads_its_host_and_its_probes(containers):
    checking = containers.start_agent("--check")
    assert checking.wait(timeout=60)["StatusCode"] == 0
    read = [line.split("\t") for line in checking.logs(stderr=False).decode().splitlines()]
    assert ["probe.tcp", "database", "1", ""] in read
    # Rates, of processors and networks, need a second reading.
    assert {"host.memory", "host.load", "host.disk"} <= {each[0] for each in read}


def test_the_agent_buffers_and_stops_within_its_grace(containers):
    agent = containers.start_agent()
    until(buffers, agent)
    agent.stop(timeout=GRACE_S + 10)
    agent.reload()
    assert agent.attrs["State"]["ExitCode"] == 0
