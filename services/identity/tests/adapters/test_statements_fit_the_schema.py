from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.adapters.postgres import read_statements
from tlsy.tenancy.context import IsolationMode

if TYPE_CHECKING:
    from tlsy.testkit.installation import Installation

OF_CONTROL = ("signing_key", "key_ring", "ring_change", "index")


async def test_every_statement_can_be_prepared_as_the_service(installation: Installation) -> None:
    tenant = await installation.provisioned_tenant(IsolationMode.SCHEMA)
    in_tenant = await installation.connect("tlsy_identity", tenant.placement)
    in_control = await installation.connect("tlsy_identity", installation.control)
    await in_tenant.execute(f"set search_path = {tenant.placement.schema}")
    await in_control.execute("set search_path = identity")
    statements = read_statements()
    assert len(statements) > 30
    for name, sql in statements.items():
        connection = in_control if any(part in name for part in OF_CONTROL) else in_tenant
        await connection.prepare(sql, timeout=5)
