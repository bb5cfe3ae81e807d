"""How many events per second the whole pipeline takes, against bare inserts of the same rows.

Each service is a process of its own and PostgreSQL syncs to a disk, with 20 tenants over the three isolation
modes and 20 rules each. Another process sends batches of 500 events over gRPC. An event counts when it is
acknowledged: stored, deduplicated, in the outbox. `sustained_events_per_s` also waits until all of it is
published and judged by the rules. The raw limit, in the same run: the same rows into the same tables by four
connections that are open already and that row-level security does not apply to, with nothing around it. Half
of them are inserted before and half after, because a machine's speed changes.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from examples.demo.sessions import INGESTION, Principals
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.ingestion.domain.events import TimeWindow, columns, read_batch
from tlsy.tenancy.array_types import know_arrays

from .suite import bench_suite, make_tenants, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from .suite import BenchSuite, BenchTenant

MODES: Final = ("SHARED",) * 14 + ("SCHEMA",) * 4 + ("DEDICATED",) * 2
RULES: Final = 20
BATCH: Final = 500
BATCHES_PER_TENANT: Final = 40
#: Before, and as many after.
RAW_BATCHES: Final = 200
RAW_CONNECTIONS: Final = 4
LEAST_RATIO: Final = 0.35
_METHOD: Final = f"/{INGESTION.full_name}/IngestEvents"


def batch_of(slug: str, number: int, lane: str = "l0") -> pb.IngestEventsRequest:
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


def place_of(batch: tuple[BenchTenant, list[Any]]) -> tuple[str, str]:
    """Database and schema of a batch's tenant."""
    place = batch[0].place
    return place.database, place.schema


async def raw_seconds(suite: BenchSuite, tenants: Sequence[BenchTenant], half: str) -> float:
    """How long the same statement and rows take as the administrator, on four connections."""
    sql = files("tlsy.ingestion.adapters.postgres").joinpath("insert_events.sql").read_text()
    window = TimeWindow(0, 2**62)
    work: list[tuple[BenchTenant, list[Any]]] = []
    for number in range(RAW_BATCHES):
        tenant = tenants[number % len(tenants)]
        events = (event.SerializeToString() for event in batch_of(tenant.slug, number, half).events)
        rows = read_batch(events, window).rows
        work.append((tenant, [tenant.tenant_id, *columns(rows)]))

    async with AsyncExitStack() as stack:
        databases = sorted({tenant.place.database for tenant in tenants})
        lanes: list[dict[str, asyncpg.Connection]] = [{} for _ in range(RAW_CONNECTIONS)]
        for connections in lanes:
            for database in databases:
                connections[database] = await suite.connect(database)
                stack.push_async_callback(connections[database].close)
                know_arrays(connections[database])

        async def lane(connections: dict[str, asyncpg.Connection], mine: Sequence[Any]) -> None:
            for (database, schema), batches in groupby(sorted(mine, key=place_of), key=place_of):
                await connections[database].execute(f"set search_path to {schema}")
                for _, arguments in batches:
                    await connections[database].fetchrow(sql, *arguments)

        began_s = time.perf_counter()
        await asyncio.gather(*(lane(each, work[start::RAW_CONNECTIONS]) for start, each in enumerate(lanes)))
        return time.perf_counter() - began_s


async def drained(suite: BenchSuite, databases: Sequence[str]) -> None:
    """Returns once the outboxes are empty and the rules engine has read all of its topic."""
    brokers = ",".join(suite.running.brokers)
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await admin.start()
    await consumer.start()
    connections = [await suite.connect(database) for database in databases]
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


async def bench() -> dict[str, Any]:
    """One run."""
    async with AsyncExitStack() as stack:
        say("starting the suite")
        suite = await stack.enter_async_context(bench_suite())
        say("making 20 tenants with 20 rules each")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        principals = Principals(suite.running, folder / "secrets.json")
        stack.push_async_callback(principals.close)
        tenants = await make_tenants(MODES, RULES, rule, principals)
        databases = sorted({tenant.place.database for tenant in tenants})
        say("inserting rows without the pipeline")
        raw_s = await raw_seconds(suite, tenants, "before")
        say("making batches")
        lanes = [
            (
                tenant.token,
                [batch_of(tenant.slug, number).SerializeToString() for number in range(BATCHES_PER_TENANT)],
            )
            for tenant in tenants
        ]
        bytes_per_event = len(lanes[0][1][0]) / BATCH
        cpu_s = -suite.cpu_s()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        sender = context.Process(target=send_all, args=(suite.running.services["ingestion"], lanes, theirs))
        began_s = time.perf_counter()
        say("sending")
        sender.start()
        # So that a sender that fails ends the wait for its answer.
        theirs.close()
        elapsed_s, acks = await asyncio.to_thread(ours.recv)
        started_s = time.perf_counter() - elapsed_s - began_s
        say("waiting until all is published and judged")
        await drained(suite, databases)
        sustained_s = time.perf_counter() - began_s - started_s
        cpu_s += suite.cpu_s()
        await asyncio.to_thread(sender.join)
        rss_mb = suite.rss_mb()
        say("inserting rows without the pipeline once more")
        raw_s += await raw_seconds(suite, tenants, "after")
    events = len(acks) * BATCH
    rate, raw = events / elapsed_s, 2 * RAW_BATCHES * BATCH / raw_s
    return {
        "events_per_s": round(rate),
        "raw_rows_per_s": round(raw),
        "ratio": round(rate / raw, 3),
        "cpu_us_per_event": round(cpu_s / events * 1e6, 1),
        "p99_ack_ms": round(statistics.quantiles(acks, n=100)[98] * 1000, 1),
        "sustained_events_per_s": round(events / sustained_s),
        "bytes_per_event": round(bytes_per_event),
        "events": events,
        "suite_rss_mb": round(rss_mb),
    }


def main() -> int:
    """Prints the figures; 1 if the ratio is missed."""
    figures = asyncio.run(bench())
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["ratio"] >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
