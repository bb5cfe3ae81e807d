"""The tables of identity: `control` has the signing keys, `tenant` each tenant's directory."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tlsy.tenancy.migrations import ServiceMigrations

MIGRATIONS: Final = ServiceMigrations(
    service="identity",
    package="identity",
    root=Path(__file__).parent,
    tenant_grants={
        "directory": ("select", "insert", "update"),
        "users": ("select", "insert", "update", "delete"),
        "api_keys": ("select", "insert", "update"),
        "role_bindings": ("select", "insert", "delete"),
        "revocations": ("select", "insert", "update", "delete"),
    },
    control_grants={
        "key_ring": ("select", "update"),
        "signing_keys": ("select", "insert", "update", "delete"),
        "revocation_index": ("select", "insert", "update", "delete"),
    },
)
