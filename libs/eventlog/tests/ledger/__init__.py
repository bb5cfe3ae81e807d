"""Two services that exist only here: one publishes, the other notes in a table what it was told."""

from __future__ import annotations

from pathlib import Path

from tlsy.tenancy.migrations import ServiceMigrations

PUBLISHER = ServiceMigrations(
    service="ingestion", package="ingestion", root=Path(__file__).parent / "nothing"
)
LEDGER = ServiceMigrations(
    service="rules-engine",
    package="rules_engine",
    root=Path(__file__).parent,
    tenant_grants={"entries": ("select", "insert")},
)
