from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tlsy.rpc.call import Call
from tlsy.rpc.errors import PermissionDenied
from tlsy.tenant_registry.handlers.delete_tenant import DeleteTenant


async def test_who_may_delete_but_not_erase_waits_for_the_retention_time():
    call = Call(
        method="tlsy.tenant_registry.v1.TenantRegistryService/DeleteTenant",
        tenant=None,
        claims=None,
        permissions=frozenset({"tenants.delete"}),
        request_id=None,
        request_hash=b"",
        correlation_id="c",
        traceparent="",
        trace_id="",
        deadline=0.0,
        peer="",
    )
    untouched: Any = None
    handler = DeleteTenant(untouched, timedelta(days=30))
    with pytest.raises(PermissionDenied) as refused:
        await handler.run(call, "acme", "", untouched, skip_retention=True)
    assert refused.value.metadata == {"permission": "tenants.erase"}
