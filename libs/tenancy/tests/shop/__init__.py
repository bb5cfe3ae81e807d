"""A small service of the tests: orders, readings by time, and prices in the control plane."""

from __future__ import annotations

from pathlib import Path

from tlsy.tenancy.migrations import ServiceMigrations

MIGRATIONS = ServiceMigrations(
    service="web-shop",
    package="web_shop",
    root=Path(__file__).parent,
    tenant_grants={
        "orders": ("select", "insert", "update", "delete"),
        "readings": ("select", "insert"),
    },
    control_grants={"prices": ("select", "insert", "update")},
    reference=(
        "insert into orders (tenant_id, order_id, note) "
        "values (current_setting('app.current_tenant')::uuid, 0, 'welcome') on conflict do nothing"
    ),
)
