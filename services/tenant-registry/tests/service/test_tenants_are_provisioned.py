from __future__ import annotations

import pytest

from tlsy.contracts.tenant_registry.v1 import tenant_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("mode", ["SHARED", "SCHEMA", "DEDICATED"])
async def test_a_tenant_becomes_active_where_its_mode_says(suite, mode):
    tenant = await suite.tenant(isolation_mode=f"ISOLATION_MODE_{mode}")
    own = f"t_{tenant.tenant_id.replace('-', '')}"
    assert tenant.state == tenant_pb2.TENANT_STATE_ACTIVE
    assert (tenant.placement.database, tenant.placement.schema) == {
        "SHARED": (suite.installation.common.database, "shared"),
        "SCHEMA": (suite.installation.common.database, own),
        "DEDICATED": (own, "tenant"),
    }[mode]
