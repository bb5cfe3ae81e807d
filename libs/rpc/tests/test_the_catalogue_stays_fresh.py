from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import grpc
import pytest

from libs.rpc.tests.world import ACME, OTHER
from tlsy.contracts import events
from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.tenant_registry.events.v1.events_pb2 import TenantChanged
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2
from tlsy.contracts.tenant_registry.v1.tenant_registry_pb2 import CatalogEntry, SnapshotCatalogResponse
from tlsy.rpc.catalog import CatalogFeed, entry_of, first_of
from tlsy.rpc.errors import Unavailable
from tlsy.runtime.ids import Slug, TenantId
from tlsy.runtime.telemetry import open_telemetry
from tlsy.tenancy.catalog import known
from tlsy.tenancy.context import IsolationMode, Placement, TenantState
from tlsy.tenancy.errors import CatalogUnavailable, TenantNotUnderstood, UnknownTenant
from tlsy.testkit.clock import FakeClock

if TYPE_CHECKING:
    from tlsy.tenancy.catalog import Catalog


def told(tenant_id=ACME, slug="acme", version=1, **changes) -> CatalogEntry:
    plain = {
        "state": tenant_pb2.TENANT_STATE_ACTIVE,
        "isolation_mode": tenant_pb2.ISOLATION_MODE_SCHEMA,
        "sector_profile": tenant_pb2.SECTOR_PROFILE_SME,
        "country": "countries/fr",
        "epoch": version,
        "placement": {"cluster": "eu-1", "database": "tlsy_tenants", "schema": "t_1"},
    }
    return CatalogEntry(tenant_id=str(tenant_id), slug=slug, version=version, **(plain | changes))


def changed(entry: CatalogEntry) -> CloudEvent:
    return CloudEvent(
        id=uuid4(),
        type=events.TENANT_CHANGED,
        source="tenant-registry",
        tenant_id=ACME,
        epoch=1,
        time=datetime.now(UTC),
        key=ACME.hex,
        data=TenantChanged(entry=entry).SerializeToString(),
    )


class RegistryStub:
    """The registry's SnapshotCatalog: pages of entries, or away. Typed as the generated stub where used."""

    def __init__(self, *entries: CatalogEntry) -> None:
        self.entries = list(entries)
        self.away = False
        self.tokens: list[str] = []
        self.hold: asyncio.Event | None = None

    async def SnapshotCatalog(self, request, timeout):  # noqa: ASYNC109, N802  the proto's
        self.tokens.append(request.resume_token)
        if self.away:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, "away")
        for number, entry in enumerate(tuple(self.entries)):
            yield SnapshotCatalogResponse(entries=[entry], resume_token=str(number + 1))
        if self.hold is not None:
            await self.hold.wait()


class Feed:
    def __init__(self, *entries: CatalogEntry) -> None:
        self.registry = RegistryStub(*entries)
        self.clock = FakeClock()
        self.catalog = CatalogFeed(cast("Any", self.registry), self.clock, open_telemetry("x"))


@pytest.fixture
async def feed():
    made = Feed(told(), told(OTHER, "other"))
    await made.catalog.start()
    await asyncio.wait_for(made.catalog.wait_ready(), 60)
    yield made
    await made.catalog.stop(0)


async def asleep(clock: FakeClock) -> None:
    """Until the feed waits for its next turn."""
    await waiting(clock, 1)


async def waiting(clock: FakeClock, count: int) -> None:
    """Until so many wait for the clock."""
    async with asyncio.timeout(60):
        while clock.sleepers < count:
            await asyncio.sleep(0)


async def test_a_feed_is_a_catalog(feed):
    port: Catalog = feed.catalog
    assert port.tenant(ACME).slug == "acme"
    assert port.by_slug(Slug("other")).tenant_id == OTHER
    with pytest.raises(UnknownTenant):
        port.by_slug(Slug("nobody"))


async def test_before_the_first_snapshot_nobody_is_unknown():
    made = Feed()
    with pytest.raises(Unavailable, match="CATALOG_NOT_READY"):
        made.catalog.tenant(ACME)
    assert made.catalog.missing() is not None


async def test_the_feed_starts_with_the_registry_away_and_catches_up():
    made = Feed(told())
    made.registry.away = True
    await made.catalog.start()
    await asleep(made.clock)
    assert not made.catalog.loaded
    made.registry.away = False
    made.clock.advance(0.1)
    await asyncio.wait_for(made.catalog.wait_ready(), 60)
    assert made.catalog.missing() is None
    await made.catalog.stop(0)


async def test_an_event_replaces_an_older_entry_and_never_a_newer_one(feed):
    feed.catalog.on_event(changed(told(version=3, modules=["reporting"])))
    feed.catalog.on_event(changed(told(version=2, modules=["billing"])))
    feed.catalog.on_event(changed(told(version=3, modules=["billing"])))
    assert feed.catalog.tenant(ACME).modules == {"reporting"}


async def test_a_deleted_tenant_is_unknown_and_does_not_come_back(feed):
    feed.catalog.on_event(changed(told(version=5, state=tenant_pb2.TENANT_STATE_DELETED)))
    feed.catalog.on_event(changed(told(version=4)))
    for lookup in (lambda: feed.catalog.tenant(ACME), lambda: feed.catalog.by_slug(Slug("acme"))):
        with pytest.raises(UnknownTenant):
            lookup()


async def test_a_slug_given_again_leads_to_the_new_tenant(feed):
    new = uuid4()
    feed.catalog.on_event(changed(told(new, "acme", version=6)))
    feed.catalog.on_event(changed(told(version=5, state=tenant_pb2.TENANT_STATE_DELETED)))
    assert feed.catalog.by_slug(Slug("acme")).tenant_id == new


async def test_the_life_of_who_had_a_slug_before_told_again_does_not_take_it_back(feed):
    """A log that was wiped tells it to who began after its end, and does not know it."""
    before = uuid4()
    feed.catalog.on_event(changed(told(version=9)))
    feed.catalog.on_event(changed(told(before, "acme", version=4)))
    assert feed.catalog.by_slug(Slug("acme")).tenant_id == ACME
    feed.catalog.on_event(changed(told(before, "acme", version=5, state=tenant_pb2.TENANT_STATE_DELETED)))
    assert feed.catalog.by_slug(Slug("acme")).tenant_id == ACME


async def test_the_sweep_goes_on_from_where_the_last_one_ended(feed):
    await asleep(feed.clock)
    feed.clock.advance(30)
    async with asyncio.timeout(60):
        while len(feed.registry.tokens) < 2:
            await asyncio.sleep(0)
    assert feed.registry.tokens == ["", "2"]


async def test_while_the_registry_is_away_the_last_state_is_kept_and_ages(feed):
    await asleep(feed.clock)
    feed.registry.away = True
    feed.clock.advance(100)
    assert feed.catalog.age_s() == 100
    assert (await feed.catalog.refresh(ACME, 1)).epoch == 1
    assert feed.catalog.tenant(ACME).slug == "acme"


async def test_a_stale_epoch_asks_the_registry(feed):
    feed.registry.entries = [told(version=2)]
    feed.clock.advance(1)
    assert (await feed.catalog.refresh(ACME, 1)).epoch == 2


async def test_an_epoch_that_is_known_to_be_newer_asks_nobody(feed):
    feed.catalog.on_event(changed(told(version=2)))
    asked = len(feed.registry.tokens)
    feed.clock.advance(1)
    assert (await feed.catalog.refresh(ACME, 1)).epoch == 2
    assert len(feed.registry.tokens) == asked


async def test_many_that_ask_at_once_share_snapshots(feed):
    """The first begins one; the others, who came while it was read, share the next."""
    feed.registry.entries = [told(version=2)]
    feed.clock.advance(1)
    asked = len(feed.registry.tokens)
    await asyncio.gather(*(feed.catalog.refresh(ACME, 1) for _ in range(50)))
    assert len(feed.registry.tokens) == asked + 2


async def test_a_flood_of_unknown_tenants_does_not_reach_the_registry(feed):
    await asleep(feed.clock)
    asked = len(feed.registry.tokens)
    flood = [asyncio.create_task(feed.catalog.refresh(uuid4(), -1)) for _ in range(50)]
    await waiting(feed.clock, 51)
    feed.clock.advance(0.2)
    outcomes = await asyncio.gather(*flood, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {UnknownTenant}
    assert len(feed.registry.tokens) == asked + 1


async def test_who_asks_soon_after_another_is_not_told_what_that_one_was(feed):
    feed.clock.advance(1)
    await feed.catalog.catch_up()
    await asleep(feed.clock)
    feed.registry.entries = [told(version=9)]
    asking = asyncio.create_task(feed.catalog.refresh(ACME, 1))
    await waiting(feed.clock, 2)
    feed.clock.advance(0.2)
    assert (await asking).epoch == 9


async def test_what_is_left_of_a_tenant_that_is_gone_asks_once(feed):
    gone = TenantId(uuid4())
    feed.clock.advance(1)
    asked = len(feed.registry.tokens)
    for _ in range(50):
        with pytest.raises(UnknownTenant):
            await known(feed.catalog, gone)
    assert len(feed.registry.tokens) == asked + 1


async def test_what_is_left_of_a_tenant_that_is_known_to_be_deleted_asks_nobody(feed):
    feed.catalog.on_event(changed(told(version=5, state=tenant_pb2.TENANT_STATE_DELETED)))
    asked = len(feed.registry.tokens)
    with pytest.raises(UnknownTenant):
        await known(feed.catalog, ACME)
    assert len(feed.registry.tokens) == asked


async def test_who_has_something_of_a_tenant_does_not_find_it_unfinished(feed):
    new = TenantId(uuid4())
    feed.catalog.on_event(changed(told(new, "new", 3, state=tenant_pb2.TENANT_STATE_PROVISIONING)))
    feed.registry.entries = [told(new, "new", 4)]
    feed.clock.advance(1)
    assert (await known(feed.catalog, new)).state is TenantState.ACTIVE


async def test_while_the_registry_is_away_a_tenant_that_is_not_known_may_still_be_there(feed):
    feed.registry.away = True
    for _ in range(2):
        feed.clock.advance(1)
        with pytest.raises(CatalogUnavailable):
            await feed.catalog.refresh(uuid4(), -1)
    feed.catalog.on_event(changed(told(version=5, state=tenant_pb2.TENANT_STATE_DELETED)))
    with pytest.raises(UnknownTenant):
        await feed.catalog.refresh(ACME, 1)


async def test_a_snapshot_asked_for_begins_after_it_was_asked_for(feed):
    """One that is being read has perhaps passed the row already."""
    await asleep(feed.clock)
    feed.registry.hold = asyncio.Event()
    feed.registry.entries = []
    first = asyncio.create_task(feed.catalog.snapshot())
    async with asyncio.timeout(60):
        while len(feed.registry.tokens) < 2:
            await asyncio.sleep(0)
    feed.registry.entries = [told(version=9)]
    second = asyncio.create_task(feed.catalog.snapshot())
    await asyncio.sleep(0)
    feed.registry.hold.set()
    assert await first
    assert await second
    assert feed.catalog.tenant(ACME).version == 9


async def test_an_entry_that_makes_no_sense_hides_no_other(feed, log_lines):
    feed.registry.entries = [told("no-id", "x", 2), told(version=2)]
    assert await feed.catalog.snapshot()
    assert feed.catalog.tenant(ACME).version == 2


#: As a release to come may say it.
LATER = {"state": 99}


async def test_a_tenant_whose_entry_cannot_be_read_is_there_for_another_try(feed):
    later = TenantId(uuid4())
    feed.registry.entries = [told(version=2, slug="acme"), told(later, "new", 3, **LATER)]
    assert await feed.catalog.snapshot()
    with pytest.raises(TenantNotUnderstood):
        await known(feed.catalog, later)
    with pytest.raises(TenantNotUnderstood):
        feed.catalog.by_slug(Slug("new"))
    feed.catalog.on_event(changed(told(later, "new", 4)))
    assert feed.catalog.by_slug(Slug("new")).version == 4
    feed.catalog.on_event(changed(told(later, "new", 5, state=tenant_pb2.TENANT_STATE_DELETED)))
    with pytest.raises(UnknownTenant):
        feed.catalog.tenant(later)


async def test_the_last_entry_that_could_be_read_is_in_use_until_its_epoch_is_refused(feed):
    feed.catalog.on_event(changed(told(version=2)))
    feed.catalog.on_event(changed(told(version=3, **LATER)))
    assert feed.catalog.tenant(ACME).epoch == 2
    feed.clock.advance(1)
    with pytest.raises(TenantNotUnderstood):
        await feed.catalog.refresh(ACME, 2)


def test_an_entry_is_read_whole():
    parent = uuid4()
    entry = entry_of(
        told(
            version=7,
            parent_id=str(parent),
            ancestor_ids=[str(parent)],
            modules=["supervision"],
            entitlements={"requests_per_s": 5},
            provider_access=tenant_pb2.PROVIDER_ACCESS_FULL,
            time_zone="Europe/Paris",
        )
    )
    assert (entry.parent_id, entry.ancestors, entry.country) == (parent, (parent,), "fr")
    assert (entry.state, entry.mode) == (TenantState.ACTIVE, IsolationMode.SCHEMA)
    assert entry.placement == Placement("eu-1", "tlsy_tenants", "t_1")
    assert entry.modules == {"supervision"}
    assert entry.entitlements == {"requests_per_s": 5}
    assert (entry.provider_access, entry.sector_profile, entry.version) == ("FULL", "sme", 7)
    assert tenant_registry_pb2.CatalogEntry.DESCRIPTOR.full_name == "tlsy.tenant_registry.v1.CatalogEntry"


async def test_who_is_cancelled_while_it_waits_leaves_no_task_behind():
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(first_of(asyncio.Event(), FakeClock(), 10.0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    async with asyncio.timeout(60):
        while asyncio.all_tasks() != before:
            await asyncio.sleep(0)
