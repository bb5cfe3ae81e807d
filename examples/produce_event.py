"""Puts one event on the producers' topic: `python examples/produce_event.py RUN_JSON KEY_FILE`.

RUN_JSON is the run.json in the suite's data directory, KEY_FILE holds an API key with the role agent. Whose
the record is says the token in its header, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path

import grpc
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tlsy.contracts.events import INGEST_TOPIC
from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.events.v1 import events_pb2
from tlsy.contracts.ingestion.v1 import ingestion_pb2


def main(run_json: str, key_file: str) -> None:
    """What the files say, to produce with."""
    start = f"python -m tlsy.embedded --data-dir {Path(run_json).parent}"
    try:
        run = json.loads(Path(run_json).read_text(encoding="utf-8"))
        identity, brokers = str(run["services"]["identity"]), [str(address) for address in run["brokers"]]
    except FileNotFoundError:
        raise SystemExit(f"The suite is not running: there is no {run_json}. Start it: {start}") from None
    except OSError as error:
        raise SystemExit(f"What the suite told cannot be read: {error}") from None
    except (ValueError, LookupError, TypeError):
        raise SystemExit(
            f"{run_json} is not what a running suite writes. Name the one in its data directory,"
            f" or start one: {start}"
        ) from None
    try:
        api_key = Path(key_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SystemExit(f"The key cannot be read: {error}") from None
    # What aiokafka logs of a broker that is away is told below.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        asyncio.run(produce(identity, ",".join(brokers), api_key))
    except KafkaError as error:
        raise SystemExit(
            f"No broker took it at {', '.join(brokers)}: {error}. If it is not running: {start}"
        ) from None


async def produce(identity: str, brokers: str, api_key: str) -> None:
    """Exchanges the key for a token and produces."""
    async with grpc.aio.insecure_channel(identity) as channel:
        exchanged = await identity_pb2_grpc.IdentityServiceStub(channel).ExchangeApiKey(
            identity_pb2.ExchangeApiKeyRequest(api_key=api_key, audience=["ingestion"])
        )
    now_us = time.time_ns() // 1000
    event = ingestion_pb2.Event(
        source="example", id=str(now_us), time_us=now_us, type="room.temperature", subject="oven", value=42
    )
    producer = AIOKafkaProducer(bootstrap_servers=brokers, enable_idempotence=True)
    try:
        await producer.start()
        written = await producer.send_and_wait(
            INGEST_TOPIC,
            events_pb2.ProducedEvents(events=[event]).SerializeToString(),
            headers=[("authorization", f"Bearer {exchanged.token.access_token}".encode())],
        )
    finally:
        await producer.stop()
    sys.stdout.write(
        f"written to partition {written.partition} at offset {written.offset}; the broker takes everything,\n"
        "and what ingestion then refuses of it, and why, says: tlsy --tenant TENANT events outcomes\n"
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004 - the program and two arguments
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as refused:
        sys.exit(f"{refused.code().name}: {refused.details()}")
