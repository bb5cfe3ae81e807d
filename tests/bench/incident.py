"""How long after an agent sends an event its incident is told, at 5,000 events per second.

Each service is a process of its own and PostgreSQL syncs to a disk; another process sends batches over gRPC
and follows both topics. A hundredth of the events fires a rule, each for a subject of its own: the time is
from before the call until IncidentChanged is read from the topic, so it spans two commits, two relays and the
evaluation. The raw limit, of the same events in the same run: until the event itself is read from ingestion's
topic, which is where the rules engine begins.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
from aiokafka import AIOKafkaConsumer

from examples.demo.sessions import Principals
from tlsy.contracts.events import EVENTS_ACCEPTED, INCIDENT_CHANGED, TOPICS
from tlsy.contracts.ingestion.events.v1.events_pb2 import EventsAccepted
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.contracts.rules_engine.events.v1.events_pb2 import IncidentChanged
from tlsy.runtime.logging import configure_logging

from .suite import bench_suite, make_tenants, say

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

TENANTS: Final = 5
RULES: Final = 20
EVENTS_PER_S: Final = 5_000
BATCH: Final = 100
SECONDS: Final = 10
#: Not measured: connections are made and code is warmed up.
WARM_UP_S: Final = 3
FIRING: Final = 100
MOST_P99_MS: Final = 250.0
FOLLOWING_WITHIN_S: Final = 30
#: Less than this is another load: who sends fell behind, and what was sent late waited unseen.
LEAST_EVENTS_PER_S: Final = 0.95 * EVENTS_PER_S
_INGEST: Final = "/tlsy.ingestion.v1.IngestionService/IngestEvents"


def rule(number: int) -> bytes:
    """Rule 0 fires for the events that are measured; the others are looked at and do not."""
    document: dict[str, Any] = {
        "schema": "tlsy.rule/1",
        "name": f"rule-{number}",
        "match": {"type": "host.cpu", "unseen": True},
        "when": {"gt": [{"field": "value"}, 900 if number == 0 else 1_000 + number]},
        "incident": {"severity": "error", "summary": "{subject} is busy"},
    }
    if number % 3 == 1:
        window = {"fn": "avg", "of": {"field": "value"}, "over_s": 60, "op": "ge", "threshold": 5_000}
        document |= {"window": window, "group_by": ["source"]}
        del document["when"]
    return json.dumps(document).encode()


def batch_of(slug: str, number: int) -> ingestion_pb2.IngestEventsRequest:
    """A batch of which the first event fires."""
    now_us = time.time_ns() // 1000
    events = [
        ingestion_pb2.Event(
            source=f"agent/{index % 10}",
            id=f"{number}-{index}",
            time_us=now_us + index,
            type="host.cpu",
            subject=f"{slug}-{number}" if index % FIRING == 0 else "cpu0",
            severity=ingestion_pb2.SEVERITY_INFO,
            value=950.0 if index % FIRING == 0 else float(index),
            labels={"host": f"web-{index % 10}", "region": "eu-west", "env": "prod", "rack": "r12"},
        )
        for index in range(BATCH)
    ]
    return ingestion_pb2.IngestEventsRequest(parent=f"tenants/{slug}", events=events)


class Readings:
    """When each firing event was sent, read, and told as an incident; in seconds of one clock."""

    def __init__(self) -> None:
        self.sent: dict[str, float] = {}
        self.read: dict[str, float] = {}
        self.told: dict[str, float] = {}
        self.following = asyncio.Event()

    async def follow(self, brokers: str) -> None:
        """Reads both topics from their ends, which `following` tells are known, until cancelled."""
        topics = (TOPICS["ingestion"], TOPICS["rules-engine"])
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=brokers, fetch_max_wait_ms=20)
        await consumer.start()
        try:
            await consumer.seek_to_end()
            self.following.set()
            async for record in consumer:
                now, kind = time.perf_counter(), dict(record.headers).get("ce_type", b"").decode()
                if kind == EVENTS_ACCEPTED:
                    for event in EventsAccepted.FromString(record.value).events:
                        if event.value > 900:
                            self.read.setdefault(event.subject, now)
                elif kind == INCIDENT_CHANGED:
                    incident = IncidentChanged.FromString(record.value).incident
                    self.told.setdefault(incident.subject, now)
        finally:
            await consumer.stop()

    def latencies_ms(self, seen: dict[str, float], since: float) -> list[float]:
        """Of the events that were sent after `since`."""
        return [(seen[name] - at) * 1000 for name, at in self.sent.items() if at >= since]


def measure(address: str, brokers: str, tokens: dict[str, str], out: Connection) -> None:
    """In a process of its own: sends at the given rate, follows both topics, answers the figures."""
    out.send(asyncio.run(_measure(address, brokers, tokens)))


async def _measure(address: str, brokers: str, tokens: dict[str, str]) -> dict[str, float]:
    readings, slugs = Readings(), list(tokens)
    following = asyncio.create_task(readings.follow(brokers))
    async with asyncio.timeout(FOLLOWING_WITHIN_S):
        await readings.following.wait()
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(_INGEST)

        async def send(slug: str, number: int) -> None:
            request = batch_of(slug, number)
            readings.sent[request.events[0].subject] = time.perf_counter()
            metadata = [("authorization", f"Bearer {tokens[slug]}")]
            await call(request.SerializeToString(), metadata=metadata, timeout=30)

        began = time.perf_counter()
        batches = (WARM_UP_S + SECONDS) * EVENTS_PER_S // BATCH
        async with asyncio.TaskGroup() as group:
            for number in range(batches):
                due = began + number * BATCH / EVENTS_PER_S
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(send(slugs[number % len(slugs)], number))
        elapsed_s = time.perf_counter() - began
    async with asyncio.timeout(60):
        while len(readings.told) < batches or len(readings.read) < batches:
            if following.done():
                following.result()
            await asyncio.sleep(0.05)
    following.cancel()
    await asyncio.wait({following})
    since = began + WARM_UP_S
    told = statistics.quantiles(readings.latencies_ms(readings.told, since), n=100)
    read = statistics.quantiles(readings.latencies_ms(readings.read, since), n=100)
    return {
        "event_to_incident_p50_ms": round(told[49], 1),
        "p99_ms": round(told[98], 1),
        "raw_p50_ms": round(read[49], 1),
        "raw_p99_ms": round(read[98], 1),
        "ratio": round(told[49] / read[49], 2),
        "events_per_s": round(batches * BATCH / elapsed_s),
        "incidents": len(readings.told),
    }


async def bench() -> dict[str, float]:
    """One run."""
    async with AsyncExitStack() as stack:
        say("starting the suite")
        suite = await stack.enter_async_context(bench_suite())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        principals = Principals(suite.running, folder / "secrets.json")
        stack.push_async_callback(principals.close)
        say(f"making {TENANTS} tenants with {RULES} rules each")
        tenants = await make_tenants(["SHARED"] * TENANTS, RULES, rule, principals)
        tokens = {tenant.slug: tenant.token for tenant in tenants}
        say(f"sending for {WARM_UP_S + SECONDS} s")
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        address, brokers = suite.running.services["ingestion"], ",".join(suite.running.brokers)
        sender = context.Process(target=measure, args=(address, brokers, tokens, theirs))
        sender.start()
        # So that a sender that fails ends the wait for its answer.
        theirs.close()
        figures: dict[str, float] = await asyncio.to_thread(ours.recv)
        await asyncio.to_thread(sender.join)
        return figures


def reached(figures: dict[str, float]) -> bool:
    """Whether the slowest hundredth is as fast as it must be, at the load that this is about."""
    return figures["p99_ms"] <= MOST_P99_MS and figures["events_per_s"] >= LEAST_EVENTS_PER_S


def main() -> int:
    """Prints the figures; 1 if they are not reached."""
    configure_logging(level="ERROR", stream=sys.stderr)
    figures = asyncio.run(bench())
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if reached(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
