"""What the rules engine has in databases."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tlsy.tenancy.migrations import ServiceMigrations

MIGRATIONS: Final = ServiceMigrations(
    service="rules-engine",
    package="rules_engine",
    root=Path(__file__).parent,
    tenant_grants={
        "rules": ("select", "insert", "update"),
        "rule_versions": ("select", "insert"),
        "rule_set": ("select", "insert", "update"),
        "rule_state": ("select", "insert", "update", "delete"),
        "incidents": ("select", "insert", "update"),
        "observed_fields": ("select", "insert", "update", "delete"),
    },
)
