"""What the catalogue has in databases: tables of the control database alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tlsy.tenancy.migrations import ServiceMigrations

MIGRATIONS: Final = ServiceMigrations(
    service="tenant-registry",
    package="tenant_registry",
    root=Path(__file__).parent,
    control_grants={
        "changes": ("select", "update"),
        "countries": ("select", "insert", "update"),
        "clusters": ("select", "insert", "update"),
        "tenants": ("select", "insert", "update"),
        "host_names": ("select", "insert", "delete"),
        "operations": ("select", "insert", "update", "delete"),
    },
)
