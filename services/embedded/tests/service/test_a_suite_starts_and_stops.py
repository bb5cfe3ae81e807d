"""`python -m tlsy.embedded` as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tlsy.contracts.events import TOPICS
from tlsy.embedded import app
from tlsy.embedded.adapters.data_directory import DataDirectory
from tlsy.embedded.settings import EmbeddedSettings, load_services
from tlsy.eventlog.kafka import KafkaInspector
from tlsy.runtime.brokers import Brokers
from tlsy.testkit import terminal

EXIT_SETTINGS = 78
DEADLINE_S = 60


class Suite:
    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.run_file = self.data / "run.json"
        self.process: Any = None

    async def start(self, *flags, terminal=None, **settings):
        environment = {**os.environ, "TMPDIR": str(self.folder), "TLSY_EMBEDDED_ARGON2_MEMORY_KIB": "64"}
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tlsy.embedded", "--data-dir", str(self.data), *flags),
                env={**environment, **settings},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log if terminal is None else terminal,
                stderr=log if terminal is None else terminal,
            )

    async def until(self, holds):
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                assert self.process.returncode is None, self.said()
                await asyncio.sleep(0.01)

    async def ready(self):
        await self.until(self.run_file.exists)
        return json.loads(self.run_file.read_text())

    async def ended(self):
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    async def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    def platform_key(self):
        return Path(json.loads(self.run_file.read_text())["api_key_file"]).read_text()

    def said(self):
        return (self.folder / "log").read_text()

    def left(self):
        """Sockets, and a database server that still runs."""
        running = self.data / "postgres" / "postmaster.pid"
        return [*self.folder.glob("tlsy-*"), *([running] if running.exists() else [])]


@asynccontextmanager
async def suite_in(folder):
    suite = Suite(folder)
    try:
        yield suite
    finally:
        if suite.process is not None and suite.process.returncode is None:
            suite.process.kill()
            await suite.process.wait()
        running = suite.data / "postgres" / "postmaster.pid"
        if running.exists():
            os.kill(int(running.read_text().split()[0]), signal.SIGQUIT)


@pytest.fixture
def folder():
    """Its path is short, because sockets are below it."""
    with tempfile.TemporaryDirectory(prefix="te-") as made:
        # PostgreSQL, which does not run as root, must get to its own folder below.
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture
async def suite(folder):
    async with suite_in(folder) as made:
        yield made


async def until_shown(shown, text):
    async with asyncio.timeout(DEADLINE_S):
        while text not in shown:
            await asyncio.sleep(0.01)


async def published(told):
    """Ids of the events on the registry's topic, in the broker that was told of."""
    servers, topic = ",".join(told["brokers"]), TOPICS["tenant-registry"]
    inspector = KafkaInspector(Brokers(servers), "tests")
    ends = await inspector.end_offsets(topic)
    await inspector.stop()
    if not any(ends.values()):
        return set()
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=None, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in ends])
        ids: list[bytes] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(ids) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    ids += [dict(record.headers)["ce_id"] for record in records]
        return set(ids)
    finally:
        await consumer.stop()


async def test_a_clean_stop_leaves_nothing_running_and_the_next_start_publishes_nothing_again(suite):
    await suite.start()
    first = await suite.ready()
    assert first["pid"] == suite.process.pid
    before = await published(first)
    assert before
    key = suite.platform_key()
    assert await suite.stop() == 0
    assert suite.left() == []
    assert not suite.run_file.exists()
    await suite.start()
    second = await suite.ready()
    assert suite.platform_key() == key
    assert not before & await published(second)
    assert await suite.stop() == 0
    assert all(json.loads(line) for line in suite.said().splitlines())


@pytest.fixture
async def screen():
    with terminal.screen() as its_and_shown:
        yield its_and_shown


async def test_a_person_at_a_terminal_is_told_where_it_is_and_what_to_do_next(suite, screen):
    its, shown = screen
    await suite.start(terminal=its)
    told = await suite.ready()
    await suite.until(lambda: b"Ctrl-C stops it" in shown)
    text = shown.decode()
    assert told["brokers"][0] in text
    assert told["api_key_file"] in text
    assert f"export TLSY_CONFIG={suite.data}/context.yaml" in text
    assert suite.platform_key().strip() not in text
    assert '"component"' not in text
    suite.process.send_signal(signal.SIGINT)
    assert await suite.ended() == 0
    await until_shown(shown, b"Nothing runs any more")
    assert suite.left() == []


async def test_a_terminal_gets_json_from_who_asked_for_json(suite, screen):
    its, shown = screen
    await suite.start("--log-format", "json", terminal=its)
    await suite.until(lambda: b"\n" in shown)
    assert "component" in json.loads(shown.decode().splitlines()[0])
    await suite.stop()


@pytest.mark.parametrize("moment", ["postgres", "postgres/PG_VERSION", "postgres/postmaster.pid"])
async def test_a_start_that_is_stopped_leaves_nothing_running(suite, moment):
    await suite.start()
    await suite.until((suite.data / moment).exists)
    await suite.stop()
    assert suite.left() == []


@pytest.mark.parametrize("settings", [["KAFKA"], ["METRICS"], ["KAFKA", "METRICS"]])
async def test_each_port_that_is_taken_is_told_and_nothing_is_left_running(suite, settings):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        await suite.start(**{f"TLSY_EMBEDDED_{name}_PORT": port for name in settings})
        assert await suite.ended() == EXIT_SETTINGS
    for name in settings:
        assert f"TLSY_EMBEDDED_{name}_PORT: {port} cannot be had" in suite.said()
    assert "Traceback" not in suite.said()
    assert suite.left() == []


async def test_a_data_directory_that_cannot_be_made_is_told_with_why(suite):
    suite.data = Path("/proc/nope")
    await suite.start()
    assert await suite.ended() == EXIT_SETTINGS
    assert suite.said() == (
        "embedded: the data directory /proc/nope cannot be used: No such file or directory: /proc/nope;"
        " choose another with --data-dir\n"
    )


@pytest.mark.parametrize("setting", ["TLSY_INGESTION_LATENESS_H", "TLSY_EMBEDDED_KAFKA_PORT"])
async def test_a_setting_of_a_service_that_is_wrong_is_told_as_one_of_the_suites_own(suite, setting):
    await suite.start(**{setting: "soon"})
    assert await suite.ended() == EXIT_SETTINGS
    first, problem = suite.said().splitlines()
    assert first == "embedded: the settings are wrong:"
    assert problem.startswith(setting)


async def test_everything_that_is_wrong_with_the_settings_is_told_at_once_and_nothing_is_made(suite):
    await suite.start(
        TLSY_EMBEDDED_KAFKA_PORT="any",
        TLSY_EMBEDDED_SENTRY_DSN="none",
        TLSY_EMBEDDED_COUNTRY_NAME="F" * 201,
        TLSY_EMBEDDED_ADMIN_EMAIL="root@example.org",
        TLSY_EMBEDDED_ADMIN_PASSWORD="canary",
        TLSY_TENANT_REGISTRY_ATTEMPTS="0",
        TLSY_TENANT_REGISTRY_PLATFORM_COUNTRY="the suite sets it, whatever is here",
        TLSY_IDENTITY_LOCK_S="soon",
        TLSY_INGESTION_LATENESS_H="soon",
        TLSY_INGESTION_SHARD="-1",
        TLSY_RULES_ENGINE_TICK_S="0",
    )
    assert await suite.ended() == EXIT_SETTINGS
    first, *problems = suite.said().splitlines()
    assert first == "embedded: the settings are wrong:"
    assert [problem.partition(":")[0] for problem in problems] == [
        "TLSY_EMBEDDED_KAFKA_PORT",
        "TLSY_EMBEDDED_SENTRY_DSN",
        "TLSY_EMBEDDED_COUNTRY_NAME",
        "TLSY_TENANT_REGISTRY_ATTEMPTS",
        "TLSY_EMBEDDED_ADMIN_PASSWORD",
        "TLSY_IDENTITY_LOCK_S",
        "TLSY_INGESTION_LATENESS_H",
        "TLSY_INGESTION_SHARD",
        "TLSY_RULES_ENGINE_TICK_S",
    ]
    assert "canary" not in suite.said()
    assert not suite.data.exists()


async def test_nobody_else_gets_the_brokers_port_while_the_suite_starts(folder):
    directory = DataDirectory(folder / "data")
    directory.open()
    try:
        settings = EmbeddedSettings()
        services = load_services([], settings, directory)
        assert services is not None
        suite = app.Suite(settings, services, directory, print)
        (address,) = suite.brokers
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])))
        await suite.stop(0)
    finally:
        directory.close()


async def test_a_second_suite_on_the_same_data_is_refused(suite):
    await suite.start()
    await suite.until((suite.data / "lock").exists)
    await suite.until(lambda: list(suite.folder.glob("tlsy-*")))
    other = Suite(suite.folder)
    await other.start()
    assert await other.ended() == EXIT_SETTINGS
    assert "a suite already runs on" in suite.said()
    assert suite.process.returncode is None
