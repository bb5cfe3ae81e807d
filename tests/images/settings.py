"""What each service is told, whatever it runs in: peers by name, keys in a folder, databases."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tlsy.identity.settings import new_keys_file
from tlsy.rpc.keys import generate_key, jwks_of
from tlsy.tenancy import migrations
from tlsy.testkit.installation import Installation, Templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.testkit.postgres import PostgresServer

SERVICES: Final = ("tenant-registry", "identity", "ingestion", "rules-engine")
PORT: Final = 7000
GRACE_S: Final = 20
KEYS: Final = "/keys"
AGENT_BUFFER: Final = "/var/lib/tlsy-agent"
_AGENT: Final = {
    "endpoints": {"identity": f"identity:{PORT}", "ingestion": f"ingestion:{PORT}"},
    "api_key_file": f"{KEYS}/agent.key",
    "buffer": {"directory": AGENT_BUFFER, "max_bytes": 1 << 26},
    "source": "agent/tests",
    "tcp": [{"name": "database", "host": "postgresql", "port": 5432}],
}


def environment(service: str, installation: Installation) -> dict[str, str]:
    """Of a replica; the others, `postgresql` and `kafka` are found by these names."""
    control, common = installation.control, installation.common
    own = {
        "identity": {"TLSY_IDENTITY_KEYS_FILE": f"{KEYS}/identity.keys"},
        "tenant-registry": {
            "TLSY_TENANT_REGISTRY_SHARED_DATABASE": common.database,
            "TLSY_TENANT_REGISTRY_FIRST_CLUSTER": common.cluster,
        },
    }
    return {
        "TLSY_LISTEN": f"0.0.0.0:{PORT}",
        "TLSY_CLEAR_TEXT": "true",
        "TLSY_PEERS": json.dumps({name: f"{name}:{PORT}" for name in SERVICES}),
        "TLSY_CLUSTERS": json.dumps(
            {control.cluster: f"postgresql://:{installation.server.password}@postgresql:5432"}
        ),
        "TLSY_CONTROL_CLUSTER": control.cluster,
        "TLSY_CONTROL_DATABASE": control.database,
        "TLSY_BROKERS": json.dumps(["kafka:9092"]),
        "TLSY_SERVICE_KEY_FILE": f"{KEYS}/{service}.key",
        "TLSY_TRUST_DIR": KEYS,
        **own.get(service, {}),
    }


def keys() -> dict[str, str]:
    """File to content of what is in `KEYS`: a key per service, whom to trust, identity's encryption keys.

    And the agent's settings, with a key that opens nothing.
    """
    files = {
        "identity.keys": new_keys_file(os.urandom),
        "agent.yaml": json.dumps(_AGENT),
        "agent.key": "none",
    }
    for service in SERVICES:
        key = generate_key()
        files |= {f"{service}.key": key.private_jwk, f"{service}.json": jwks_of((key,))}
    return files


@contextmanager
def installed(server: PostgresServer) -> Iterator[Installation]:
    """A control and a common database with every service's tables, dropped at the end."""
    with asyncio.Runner() as runner:
        templates = Templates(server, migrations.installed())
        runner.run(templates.build())
        installing = templates.installation()
        yield runner.run(installing.__aenter__())
        runner.run(installing.__aexit__(None, None, None))
        runner.run(templates.drop())
