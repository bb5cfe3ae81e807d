"""How many events per second the whole pipeline takes, against bare inserts of the same rows.

The suite runs as in the demonstration, durable, with 20 tenants over the three isolation modes and 20 rules
each. Another process sends batches of 500 events over gRPC. An event counts when it is acknowledged: stored,
deduplicated, in the outbox. `sustained_events_per_s` also waits until all of it is published and judged by
the rules. The raw limit, in the same run: the same rows into the same tables by four connections that
row-level security does not apply to, with nothing around it. Half of them are inserted before and half after,
because a machine's speed changes.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import grpc
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from examples.demo.processes import Processes
from examples.demo.scenario import publish
from examples.demo.sessions import INGESTION, Principals
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2
from tlsy.ingestion.domain.events import TimeWindow, columns, read_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.demo.processes import Running
    from examples.demo.sessions import Session

MODES: Final = ("SHARED",) * 14 + ("SCHEMA",) * 4 + ("DEDICATED",) * 2
RULES: Final = 20
BATCH: Final = 500
BATCHES_PER_TENANT: Final = 40
#: Before, and as many after.
RAW_BATCHES: Final = 200
RAW_CONNECTIONS: Final = 4
LANES_PER_TENANT: Final = 1
LEAST_RATIO: Final = 0.35
_METHOD: Final = f"/{INGESTION.full_name}/IngestEvents"


class BenchTenant:
    """A tenant, its token, and where its rows are."""

    def __init__(self, slug: str, token: str, place: tenant_pb2.Placement, tenant_id: str) -> None:
        self.slug = slug
        self.token = token
        self.place = place
        self.tenant_id = tenant_id


def batch_of(slug: str, lane: str, number: int) -> pb.IngestEventsRequest:
    """500 events of six labels and at least 150 bytes; no two batches share one."""
    now_us = time.time_ns() // 1000
    return pb.IngestEventsRequest(
        parent=f"tenants/{slug}",
        events=[
            pb.Event(
                source=f"agent/{lane}-{index % 10}",
                id=f"{lane}-{number}-{index}-{now_us}",
                time_us=now_us + index,
                type=f"bench.kind{index % 4}",
                subject="cpu0",
                site="paris",
                severity=pb.SEVERITY_INFO,
                value=float(index % 100),
                labels={
                    "host": f"web-{index % 10}",
                    "region": "eu-west",
                    "env": "prod",
                    "rack": "r12",
                    "service": "checkout",
                    "version": "1.2.3",
                },
            )
            for index in range(BATCH)
        ],
    )


def rule(number: int) -> bytes:
    """A threshold or a window over one of the four types; few events fire it."""
    document: dict[str, Any] = {
        "schema": "tlsy.rule/1",
        "name": f"rule-{number}",
        "match": {"type": f"bench.kind{number % 4}", "unseen": True},
        "group_by": ["source"],
        "incident": {"severity": "warning", "summary": "{source} is busy"},
    }
    region = {"eq": [{"field": "labels.region"}, "eu-west"]}
    if number % 2:
        document["when"] = {"and": [region, {"gt": [{"field": "value"}, 1000 + number]}]}
    else:
        document["when"] = region
        document["window"] = {
            "fn": "avg",
            "of": {"field": "value"},
            "over_s": 60,
            "op": "ge",
            "threshold": 1000 + number,
        }
    return json.dumps(document).encode()


def send_all(address: str, lanes: Sequence[tuple[str, list[bytes]]], out: Any) -> None:
    """In a process of its own: sends each lane's batches one after another, all lanes at once."""

    async def lane(token: str, requests: list[bytes]) -> list[float]:
        acks = []
        async with grpc.aio.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            call: Any = channel.unary_unary(_METHOD)
            for request in requests:
                began_s = time.perf_counter()
                answer = await call(request, metadata=[("authorization", f"Bearer {token}")], timeout=60)
                acks.append(time.perf_counter() - began_s)
                outcomes = list(pb.IngestEventsResponse.FromString(answer).outcomes)
                if outcomes.count(pb.OUTCOME_ACCEPTED) != BATCH:
                    raise RuntimeError("a batch was not accepted wholly")
        return acks

    async def run() -> tuple[float, list[float]]:
        began_s = time.perf_counter()
        acks = await asyncio.gather(*(lane(token, requests) for token, requests in lanes))
        return time.perf_counter() - began_s, [ack for each in acks for ack in each]

    out.send(asyncio.run(run()))


async def make_tenants(running: Running, principals: Principals) -> list[BenchTenant]:
    """20 tenants with rules and an agent's token each."""
    platform = principals.platform()
    country = tenant_pb2.Country(name="countries/fr", display_name="France")
    try:
        await platform.registry.CreateCountry(tenant_registry_pb2.CreateCountryRequest(country=country))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
    del running
    return list(
        await asyncio.gather(
            *(_make_tenant(number, mode, platform, principals) for number, mode in enumerate(MODES))
        )
    )


async def _make_tenant(number: int, mode: str, platform: Session, principals: Principals) -> BenchTenant:
    slug = f"bench-{mode.lower()}-{number}"
    operation = await platform.registry.CreateTenant(
        tenant_registry_pb2.CreateTenantRequest(
            tenant_slug=slug,
            tenant=tenant_pb2.Tenant(
                display_name=slug,
                country="countries/fr",
                sector_profile=tenant_pb2.SECTOR_PROFILE_SME,
                isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{mode}"),
                tier=tenant_pb2.TIER_ENTERPRISE,
                locale="fr-FR",
                time_zone="Europe/Paris",
                currency_code="EUR",
            ),
        )
    )
    while not operation.done:
        wait = tenant_registry_pb2.WaitOperationRequest(name=operation.name)
        operation = await platform.registry.WaitOperation(wait, timeout=60)
    tenant = await platform.registry.GetTenant(tenant_registry_pb2.GetTenantRequest(name=f"tenants/{slug}"))
    administrator = await principals.administrator(slug, platform)
    await principals.agent_key(slug, administrator)

    class Owner:
        """What `publish` needs of a tenant."""

        name = f"tenants/{slug}"

    owner: Any = Owner()
    owner.administrator = administrator
    for each in range(RULES):
        await publish(owner, f"rule-{each}", rule(each))
    token = await principals.agent(slug).token()
    return BenchTenant(slug, token, tenant.placement, tenant.tenant_id)


async def raw_seconds(running: Running, password: str, tenants: Sequence[BenchTenant], half: str) -> float:
    """How long the same statement and rows take as the administrator, on four connections."""
    sql = files("tlsy.ingestion.adapters.postgres").joinpath("insert_events.sql").read_text()
    window = TimeWindow(0, 2**62)
    work: list[tuple[BenchTenant, list[Any]]] = []
    for number in range(RAW_BATCHES):
        tenant = tenants[number % len(tenants)]
        rows = read_batch(batch_of(tenant.slug, half, number).events, window).rows
        work.append((tenant, [tenant.tenant_id, *columns(rows)]))

    async def lane(mine: Sequence[tuple[BenchTenant, list[Any]]]) -> None:
        for database in sorted({tenant.place.database for tenant, _ in mine}):
            connection = await asyncpg.connect(
                host=running.postgres, user="postgres", password=password, database=database, timeout=10
            )
            for tenant, arguments in mine:
                if tenant.place.database == database:
                    await connection.execute(f"set search_path to {tenant.place.schema}")
                    await connection.fetchrow(sql, *arguments)
            await connection.close()

    began_s = time.perf_counter()
    await asyncio.gather(*(lane(work[start::RAW_CONNECTIONS]) for start in range(RAW_CONNECTIONS)))
    return time.perf_counter() - began_s


async def drained(running: Running, password: str, databases: Sequence[str]) -> None:
    """Returns once the outboxes are empty and the rules engine has read all of its topic."""
    brokers = ",".join(running.brokers)
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await admin.start()
    await consumer.start()
    connections = [
        await asyncpg.connect(
            host=running.postgres, user="postgres", password=password, database=database, timeout=10
        )
        for database in databases
    ]
    try:
        while True:
            waiting = 0
            for connection in connections:
                waiting += await connection.fetchval(
                    "select count(*) from ingestion.outbox where published_at is null"
                )
            offsets = await admin.list_consumer_group_offsets("rules-engine")
            done = {tp: meta.offset for tp, meta in offsets.items() if tp.topic == "tlsy.ingestion"}
            partitions = consumer.partitions_for_topic("tlsy.ingestion") or set()
            ends = await consumer.end_offsets([TopicPartition("tlsy.ingestion", p) for p in partitions])
            behind = sum(end - done.get(tp, 0) for tp, end in ends.items() if end)
            if not waiting and not behind:
                return
            await asyncio.sleep(0.05)
    finally:
        for connection in connections:
            await connection.close()
        await consumer.stop()
        await admin.close()


def say(text: str) -> None:
    """Progress, for whoever waits."""
    sys.stderr.write(f"{text} …\n")


async def bench(data: Path) -> dict[str, Any]:
    """One run."""
    processes = Processes(data)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(processes.stop)
        say("starting the suite")
        running = await processes.start_suite()
        say("making 20 tenants with 20 rules each")
        principals = Principals(running, data / "principals" / "secrets.json")
        stack.push_async_callback(principals.close)
        tenants = await make_tenants(running, principals)
        password = (data / "suite" / "postgres.password").read_text()
        databases = sorted({tenant.place.database for tenant in tenants})
        say("inserting rows without the pipeline")
        raw_s = await raw_seconds(running, password, tenants, "before")
        say("making batches")
        lanes = [
            (
                tenant.token,
                [
                    batch_of(tenant.slug, f"l{lane}", number).SerializeToString()
                    for number in range(BATCHES_PER_TENANT // LANES_PER_TENANT)
                ],
            )
            for tenant in tenants
            for lane in range(LANES_PER_TENANT)
        ]
        bytes_per_event = len(lanes[0][1][0]) / BATCH
        suite = psutil.Process(json.loads((data / "suite" / "run.json").read_text())["pid"])
        before = suite.cpu_times()
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        sender = multiprocessing.get_context("spawn").Process(
            target=send_all, args=(running.services["ingestion"], lanes, theirs)
        )
        began_s = time.perf_counter()
        say("sending")
        sender.start()
        # So that a sender that fails ends the wait for its answer.
        theirs.close()
        elapsed_s, acks = await asyncio.to_thread(ours.recv)
        started_s = time.perf_counter() - elapsed_s - began_s
        say("waiting until all is published and judged")
        await drained(running, password, databases)
        sustained_s = time.perf_counter() - began_s - started_s
        sender.join()
        after = suite.cpu_times()
        rss_mb = suite.memory_info().rss / 2**20
        say("inserting rows without the pipeline once more")
        raw_s += await raw_seconds(running, password, tenants, "after")
    events = len(acks) * BATCH
    rate, raw = events / elapsed_s, 2 * RAW_BATCHES * BATCH / raw_s
    return {
        "events_per_s": round(rate),
        "raw_rows_per_s": round(raw),
        "ratio": round(rate / raw, 3),
        "cpu_us_per_event": round(
            (after.user + after.system - before.user - before.system) / events * 1e6, 1
        ),
        "p99_ack_ms": round(statistics.quantiles(acks, n=100)[98] * 1000, 1),
        "sustained_events_per_s": round(events / sustained_s),
        "bytes_per_event": round(bytes_per_event),
        "events": events,
        "suite_rss_mb": round(rss_mb),
    }


def main() -> int:
    """Runs in a scratch data directory and prints the figures."""
    root = Path("/var/lib/tlsy") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    root.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="bench-ingest-", dir=root))
    data.chmod(0o711)
    try:
        figures = asyncio.run(bench(data))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["ratio"] >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
