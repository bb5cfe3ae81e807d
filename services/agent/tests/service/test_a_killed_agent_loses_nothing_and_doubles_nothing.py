from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tlsy.agent.adapters.buffer import DiskBuffer
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.ingestion.app import build
from tlsy.ingestion.settings import IngestionSettings
from tlsy.testkit.kafka import embedded_broker
from tlsy.testkit.peers import peers

CONFIG = """
endpoints: {{identity: "{identity}", ingestion: "{ingestion}"}}
api_key_file: {folder}/key
buffer: {{directory: {folder}/buffer}}
source: agent/killed
interval_s: 0.1
"""


class World:
    def __init__(self, installation, tenant, folder):
        self._tenancy = installation.tenancy("ingestion")
        self._tenant = tenant
        self._folder = folder

    @asynccontextmanager
    async def agent(self):
        """A running agent process; killed if it is still there in the end."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tlsy.agent", "--config", str(self._folder / "agent.yaml"),
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def stored(self):
        async with self._tenancy.transaction(self._tenant.context, write=False) as tx:
            return sorted(row["event_id"] for row in await tx.fetch("select event_id from events"))

    def collected(self):
        """Ids of all events ever put on disk; a segment is as big as no test fills it."""
        (self._folder / "buffer" / "place").unlink(missing_ok=True)
        buffer = DiskBuffer(self._folder / "buffer", 10**9)
        records, _ = buffer.peek(10**6, 10**9)
        buffer.close()
        return sorted(ingestion_pb2.Event.FromString(record).id for record in records)

    async def until_stored(self, count):
        async with asyncio.timeout(60):
            while len(await self.stored()) < count:
                await asyncio.sleep(0.02)


@pytest.fixture
async def world(installation, tmp_path):
    await installation.platform_tenant()
    tenant = await installation.provisioned_tenant(modules=frozenset({"supervision"}))
    async with AsyncExitStack() as stack:
        brokers = await stack.enter_async_context(embedded_broker())
        around = await stack.enter_async_context(peers(installation, brokers))
        host = around.host("ingestion")
        service = build(IngestionSettings(), host)
        await service.start()
        stack.push_async_callback(service.stop, 5)
        (tmp_path / "key").write_text(around.api_key(tenant, "agent"))
        config = CONFIG.format(identity=around.address("identity"), ingestion=host.listen, folder=tmp_path)
        (tmp_path / "agent.yaml").write_text(config)
        yield World(installation, tenant, tmp_path)


async def test_events_stored_are_exactly_those_collected_whenever_it_is_killed(world):
    moments = random.Random(7)
    before = 0
    for _ in range(6):
        async with world.agent() as process:
            await world.until_stored(before + 1)
            killed_at = time.monotonic() + moments.uniform(0, 0.4)
            while time.monotonic() < killed_at:
                await asyncio.sleep(0.001)
            process.kill()
        before = len(await world.stored())
    async with world.agent() as process:
        await world.until_stored(before + 1)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    assert await world.stored() == world.collected()
