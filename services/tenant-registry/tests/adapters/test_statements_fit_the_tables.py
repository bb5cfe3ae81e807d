from __future__ import annotations

from tlsy.tenant_registry.adapters.postgres import load_statements


async def test_every_statement_can_be_prepared_by_the_service_s_role(installation):
    connection = await installation.connect("tlsy_tenant_registry", installation.control)
    await connection.execute("set search_path to tenant_registry")
    for name, text in load_statements().items():
        assert await connection.prepare(text), name
