from __future__ import annotations

import asyncio
import time

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.events import TENANT_CHANGED
from tlsy.contracts.tenant_registry.events.v1.events_pb2 import TenantChanged
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as pb
from tlsy.eventlog.kafka_readers import KafkaTail
from tlsy.runtime.brokers import Brokers

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def snapshot(suite, token="", replica=0):
    entries = []
    request = pb.SnapshotCatalogRequest(resume_token=token)
    async for part in suite.stub(replica=replica).SnapshotCatalog(request):
        entries += part.entries
        token = part.resume_token
    return entries, token


async def test_a_snapshot_is_complete_and_goes_on_where_the_last_one_ended(suite):
    first = await suite.tenant()
    entries, token = await snapshot(suite)
    second = await suite.tenant()
    later, _ = await snapshot(suite, token, replica=1)
    after = {entry.tenant_id for entry in later}
    assert first.tenant_id in {entry.tenant_id for entry in entries}
    assert (first.tenant_id in after, second.tenant_id in after) == (False, True)


async def test_who_follows_snapshots_during_creations_misses_none(suite):
    _, token = await snapshot(suite)
    seen: set[tuple[str, int]] = set()
    stop = asyncio.Event()

    async def follow():
        at = token
        while True:
            ended = stop.is_set()
            entries, at = await snapshot(suite, at, replica=1)
            seen.update((entry.tenant_id, entry.version) for entry in entries)
            if ended:
                return

    following = asyncio.create_task(follow())
    made = await asyncio.gather(*(suite.tenant() for _ in range(12)))
    stop.set()
    await following
    assert {tenant.tenant_id for tenant in made} <= {tenant_id for tenant_id, _ in seen}
    assert len({version for _, version in seen}) == len(seen)


async def test_a_deleted_tenant_is_told_to_who_knew_it_and_to_nobody_new(suite):
    tenant = await suite.tenant()
    _, token = await snapshot(suite)
    request = pb.DeleteTenantRequest(name=tenant.name, skip_retention=True)
    await suite.finish(await suite.stub().DeleteTenant(request))
    later, _ = await snapshot(suite, token)
    fresh, _ = await snapshot(suite)
    assert [entry.state for entry in later if entry.tenant_id == tenant.tenant_id] == [5]
    assert tenant.tenant_id not in {entry.tenant_id for entry in fresh}


async def changes_of(tail, tenant):
    """Its changes that a follower reads next; at once, so that the clock can be looked at."""
    found: list[TenantChanged] = []
    while not found:
        for record in await tail.fetch(max_records=100, timeout_s=0.2):
            if dict(record.headers).get("ce_type") == TENANT_CHANGED.encode():
                changed = TenantChanged.FromString(record.value)
                found += [changed] if changed.entry.tenant_id == tenant.tenant_id else []
    return found


async def test_a_change_is_an_event_within_a_second(suite):
    tail = KafkaTail(Brokers(suite.broker), ["tlsy.tenant-registry"], "tests")
    await tail.open()
    took_s: list[float] = []
    causes: list[str] = []
    try:
        tenant = await suite.tenant()
        async with asyncio.timeout(60):
            while len(causes) < 2:
                causes += [changed.cause for changed in await changes_of(tail, tenant)]
            for number in range(5):
                tenant.display_name = f"Changed {number}"
                request = pb.UpdateTenantRequest(
                    tenant=tenant_pb2.Tenant(name=tenant.name, display_name=tenant.display_name),
                    update_mask=FieldMask(paths=["display_name"]),
                )
                await suite.stub().UpdateTenant(request)
                answered_at = time.monotonic()
                told = await changes_of(tail, tenant)
                took_s.append(time.monotonic() - answered_at)
                assert [changed.entry.display_name for changed in told] == [tenant.display_name]
    finally:
        await tail.close()
    assert causes == ["created", "activated"]
    # The better ones: on a busy machine the clock on the wall measures the others.
    assert sorted(took_s)[1] <= 1, took_s


@pytest.mark.parametrize("token", ["yesterday", "9" * 30, "1" * 19])
async def test_a_resume_token_that_nobody_gave_is_refused(suite, refused, token):
    error = await refused(snapshot(suite, token))
    assert error.violations[0].reason == "RESUME_TOKEN_INVALID"
