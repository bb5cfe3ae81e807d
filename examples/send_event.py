"""Sends one event by gRPC: `python examples/send_event.py RUN_JSON KEY_FILE`.

RUN_JSON is the run.json in the suite's data directory, KEY_FILE holds an API key with the role agent.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import grpc

from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc


def main(run_json: str, key_file: str) -> int:
    """Exchanges the key for a token, sends, and prints what became of the event."""
    services = json.loads(Path(run_json).read_text(encoding="utf-8"))["services"]
    api_key = Path(key_file).read_text(encoding="utf-8").strip()
    with grpc.insecure_channel(services["identity"]) as channel:
        exchanged = identity_pb2_grpc.IdentityServiceStub(channel).ExchangeApiKey(
            identity_pb2.ExchangeApiKeyRequest(api_key=api_key, audience=["ingestion"])
        )
    now_us = time.time_ns() // 1000
    event = ingestion_pb2.Event(
        source="example", id=str(now_us), time_us=now_us, type="room.temperature", subject="oven", value=41
    )
    with grpc.insecure_channel(services["ingestion"]) as channel:
        answer = ingestion_pb2_grpc.IngestionServiceStub(channel).IngestEvents(
            ingestion_pb2.IngestEventsRequest(parent=exchanged.tenant, events=[event]),
            metadata=(("authorization", f"Bearer {exchanged.token.access_token}"),),
        )
    sys.stdout.write(f"{ingestion_pb2.Outcome.Name(answer.outcomes[0])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
