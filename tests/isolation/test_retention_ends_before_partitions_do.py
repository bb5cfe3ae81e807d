"""What a tenant may be promised to keep, against what its tables keep."""

from __future__ import annotations

from tlsy.tenancy.context import IsolationMode
from tlsy.tenant_registry.domain.entitlements import KINDS, MAX_RETENTION_DAYS


async def test_no_retention_is_sold_that_is_longer_than_partitions_live(installation):
    for mode in IsolationMode:
        entry = await installation.provisioned_tenant(mode)
        owner = await installation.connect(None, entry.placement)
        kept = await owner.fetch(
            "select keep_days from tlsy.time_table where schema_name = $1 and table_name = 'events'",
            entry.placement.schema,
        )
        assert [row["keep_days"] for row in kept] == [MAX_RETENTION_DAYS]
        await owner.close()
    assert KINDS["retention_days"].most == MAX_RETENTION_DAYS
