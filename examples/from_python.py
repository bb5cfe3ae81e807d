"""A tenant, a key, a rule and an event by gRPC: `python examples/from_python.py RUN_JSON SLUG`.

RUN_JSON is the run.json in the data directory of a suite. It acts as the platform, by the key that the suite
made, then in the new tenant, which lets the provider in, and then as an agent, by a key of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.ingestion.v1 import ingestion_pb2, ingestion_pb2_grpc
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2, rules_engine_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2, tenant_registry_pb2_grpc

SERVICES = ("tenant-registry", "identity", "ingestion", "rules-engine")
RULE = Path(__file__).parent / "rules" / "oven-hot.json"


def bearer(token: identity_pb2.Token) -> tuple[tuple[str, str], ...]:
    """What a call carries."""
    return (("authorization", f"Bearer {token.access_token}"),)


def main(run_json: str, slug: str) -> int:
    """Each step is one call; what is refused raises gRPC's exception."""
    addresses, api_key = told(Path(run_json))
    channels = {name: grpc.insecure_channel(address) for name, address in addresses.items()}
    registry = tenant_registry_pb2_grpc.TenantRegistryServiceStub(channels["tenant-registry"])
    identity = identity_pb2_grpc.IdentityServiceStub(channels["identity"])
    rules = rules_engine_pb2_grpc.RulesEngineServiceStub(channels["rules-engine"])
    ingestion = ingestion_pb2_grpc.IngestionServiceStub(channels["ingestion"])

    platform = bearer(exchange(identity, api_key))
    create(registry, slug, platform)
    administrator = bearer(enter(identity, slug, platform))
    key = identity.CreateApiKey(
        identity_pb2.CreateApiKeyRequest(parent=f"tenants/{slug}", display_name="till", role="agent"),
        metadata=administrator,
    )
    rules.PublishRule(
        rules_engine_pb2.PublishRuleRequest(
            name=f"tenants/{slug}/rules/oven-hot", document=RULE.read_bytes()
        ),
        metadata=administrator,
    )
    now_us = time.time_ns() // 1000
    event = ingestion_pb2.Event(
        source="python",
        id=os.urandom(8).hex(),
        time_us=now_us,
        type="room.temperature",
        subject="oven",
        value=41,
    )
    answer = ingestion.IngestEvents(
        ingestion_pb2.IngestEventsRequest(parent=f"tenants/{slug}", events=[event]),
        metadata=bearer(exchange(identity, key.secret)),
    )
    sys.stdout.write(f"{ingestion_pb2.Outcome.Name(answer.outcomes[0])}\n")
    return 0


def told(run_file: Path) -> tuple[dict[str, str], str]:
    """Where each service listens, and the platform's key."""
    start = f"python -m tlsy.embedded --data-dir {run_file.parent}"
    try:
        run = json.loads(run_file.read_text(encoding="utf-8"))
        addresses = {name: str(run["services"][name]) for name in SERVICES}
        key_file = Path(run["api_key_file"])
    except FileNotFoundError:
        raise SystemExit(f"The suite is not running: there is no {run_file}. Start it: {start}") from None
    except OSError as error:
        raise SystemExit(f"What the suite told cannot be read: {error}") from None
    except (ValueError, LookupError, TypeError):
        raise SystemExit(
            f"{run_file} is not what a running suite writes. Name the one in its data directory,"
            f" or start one: {start}"
        ) from None
    try:
        return addresses, key_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SystemExit(f"The key cannot be read: {error}") from None


def exchange(identity: Any, api_key: str) -> identity_pb2.Token:
    """A token for ten minutes."""
    token: identity_pb2.Token = identity.ExchangeApiKey(
        identity_pb2.ExchangeApiKeyRequest(api_key=api_key)
    ).token
    return token


def enter(identity: Any, slug: str, platform: tuple[tuple[str, str], ...]) -> identity_pb2.Token:
    """The platform's token in the tenant."""
    target = identity_pb2.ExchangeTokenRequest(target_tenant=f"tenants/{slug}", reason="set-up")
    token: identity_pb2.Token = identity.ExchangeToken(target, metadata=platform).token
    return token


def create(registry: Any, slug: str, platform: tuple[tuple[str, str], ...]) -> None:
    """Returns once the tenant is active."""
    tenant = tenant_pb2.Tenant(
        display_name=slug.capitalize(),
        country="countries/fr",
        isolation_mode=tenant_pb2.ISOLATION_MODE_SHARED,
        provider_access=tenant_pb2.PROVIDER_ACCESS_FULL,
    )
    operation = registry.CreateTenant(
        tenant_registry_pb2.CreateTenantRequest(tenant_slug=slug, tenant=tenant), metadata=platform
    )
    while not operation.done:
        wait = tenant_registry_pb2.WaitOperationRequest(name=operation.name)
        operation = registry.WaitOperation(wait, metadata=platform)
    if operation.HasField("error"):
        raise SystemExit(operation.error.message)


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004 - the program and two arguments
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except grpc.RpcError as refused:
        sys.exit(f"{refused.code().name}: {refused.details()}")
