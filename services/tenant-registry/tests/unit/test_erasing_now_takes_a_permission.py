from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tlsy.rpc.errors import PermissionDenied
from tlsy.tenant_registry.handlers.delete_tenant import DeleteTenant
from tlsy.testkit.calls import public_call


async def test_who_may_delete_but_not_erase_waits_for_the_retention_time():
    call = replace(public_call("DeleteTenant"), permissions=frozenset({"tenants.delete"}))
    untouched: Any = None
    handler = DeleteTenant(untouched, timedelta(days=30))
    with pytest.raises(PermissionDenied) as refused:
        await handler.run(call, "acme", "", untouched, skip_retention=True)
    assert refused.value.metadata == {"permission": "tenants.erase"}
