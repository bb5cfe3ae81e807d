"""What ingestion has in databases."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tlsy.tenancy.migrations import ServiceMigrations

MIGRATIONS: Final = ServiceMigrations(
    service="ingestion",
    package="ingestion",
    root=Path(__file__).parent,
    tenant_grants={
        "events": ("select", "insert"),
        "ingest_counts": ("select", "insert", "update"),
        "ingest_minutes": ("select", "insert", "update"),
        "ingest_quota_passed": ("select", "insert"),
        "ingest_outcomes": ("select", "insert"),
    },
)
