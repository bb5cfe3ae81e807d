from __future__ import annotations

import pytest

from tlsy.tenancy.context import IsolationMode


@pytest.mark.parametrize("mode", list(IsolationMode))
async def test_rows_are_read_back_in_every_mode(installation, mode):
    tenant = await installation.provisioned_tenant(mode)
    shop = installation.tenancy("web_shop")
    async with shop.transaction(tenant.context, write=True) as tx:
        await tx.execute("insert into orders values ($1, 1, 'ours')", tenant.tenant_id)
    async with shop.transaction(tenant.context, write=False) as tx:
        rows = await tx.fetch("select note from orders order by order_id")
    assert [row["note"] for row in rows] == ["welcome", "ours"]
