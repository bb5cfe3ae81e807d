"""The catalogue of tenants in a service's memory.

Complete at the start by a snapshot from the registry, fresh by its events, and made sure of by a snapshot of
what changed every half minute. An entry is only ever replaced by one with a higher version, so snapshot and
events may come in any order and twice. While the registry is away the last state stays in use, and its age is
measured.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from uuid import UUID

import grpc
from prometheus_client import Gauge

from tlsy.contracts.events import TENANT_CHANGED
from tlsy.contracts.tenant_registry.events.v1.events_pb2 import TenantChanged
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1.tenant_registry_pb2 import CatalogEntry, SnapshotCatalogRequest
from tlsy.rpc.errors import Unavailable
from tlsy.runtime.ids import Slug, TenantId
from tlsy.runtime.logging import get_logger
from tlsy.runtime.service import Task
from tlsy.tenancy.catalog import TenantEntry
from tlsy.tenancy.context import IsolationMode, Placement, TenantState
from tlsy.tenancy.errors import CatalogUnavailable, TenantNotUnderstood, UnknownTenant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.contracts.tenant_registry.v1.tenant_registry_pb2_grpc import TenantRegistryServiceAsyncStub
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.telemetry import Telemetry

_SNAPSHOT_TIMEOUT_S: Final = 30.0
_REFRESH_TIMEOUT_S: Final = 3.0
_SWEEP_S: Final = 30.0
_FIRST_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 5.0
_MIN_BETWEEN_REFRESHES_S: Final = 0.2
_MAX_GONE: Final = 10_000


class Entries:
    """Tenants by id and by slug, highest version each; the registry fills one from its own tables.

    Versions are of one sequence for all tenants: of two that had a slug, the one with the higher has it now.
    """

    __slots__ = ("_by_id", "_by_slug", "_unread", "_versions")

    def __init__(self) -> None:
        self._by_id: dict[TenantId, TenantEntry] = {}
        self._by_slug: dict[Slug, TenantId] = {}
        self._versions: dict[TenantId, int] = {}
        self._unread: dict[TenantId, tuple[int, Slug]] = {}

    def apply(self, entry: TenantEntry) -> bool:
        """Take the entry if it is newer, and say so; a deleted tenant is forgotten but for its version."""
        if entry.version <= self._versions.get(entry.tenant_id, -1):
            return False
        self._versions[entry.tenant_id] = entry.version
        if entry.state is TenantState.DELETED:
            self._by_id.pop(entry.tenant_id, None)
            if self._by_slug.get(entry.slug) == entry.tenant_id:
                del self._by_slug[entry.slug]
        else:
            self._by_id[entry.tenant_id] = entry
            holder = self._by_slug.get(entry.slug, entry.tenant_id)
            if entry.version >= self._versions[holder]:
                self._by_slug[entry.slug] = entry.tenant_id
        return True

    def leave_unread(self, tenant_id: TenantId, slug: Slug, version: int) -> None:
        """There is an entry that cannot be read; the one before it, if there is one, stays."""
        if version > self._unread.get(tenant_id, (-1, slug))[0]:
            self._unread[tenant_id] = (version, slug)

    def is_deleted(self, tenant_id: TenantId) -> bool:
        """Whether it is known to have been deleted, which is for good."""
        return tenant_id in self._versions and tenant_id not in self._by_id

    def tenant(self, tenant_id: TenantId) -> TenantEntry:
        """See `Catalog.tenant`."""
        entry = self._by_id.get(tenant_id)
        if entry is None:
            raise TenantNotUnderstood(tenant_id) if self.is_unread(tenant_id) else UnknownTenant(tenant_id)
        return entry

    def by_slug(self, slug: Slug) -> TenantEntry:
        """See `Catalog.by_slug`."""
        tenant_id = self._by_slug.get(slug)
        if tenant_id is None:
            unread = any(slug == of and self.is_unread(each) for each, (_, of) in self._unread.items())
            raise TenantNotUnderstood(slug) if unread else UnknownTenant(slug)
        return self._by_id[tenant_id]

    def is_unread(self, tenant_id: TenantId) -> bool:
        """Whether the newest entry of it is one that cannot be read."""
        version, _ = self._unread.get(tenant_id, (-1, ""))
        return version > self._versions.get(tenant_id, -1)

    def __iter__(self) -> Iterator[TenantEntry]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)


class CatalogFeed:
    """tlsy.tenancy's `Catalog` port for services that are not the registry; a component."""

    #: What `on_event` is to be fed with.
    EVENT_TYPES: Final = frozenset({TENANT_CHANGED})

    __slots__ = (
        "_clock",
        "_entries",
        "_gone",
        "_last_attempt",
        "_last_success",
        "_loaded",
        "_logger",
        "_registry",
        "_resume_token",
        "_snapshot",
        "_task",
    )

    def __init__(self, registry: TenantRegistryServiceAsyncStub, clock: Clock, telemetry: Telemetry) -> None:
        self._registry = registry
        self._clock = clock
        self._entries = Entries()
        # Asked for by what they had left behind, and not there: they were deleted, for an id is given once.
        self._gone: set[TenantId] = set()
        self._loaded = asyncio.Event()
        self._last_attempt = float("-inf")
        self._last_success = clock.monotonic()
        self._resume_token = ""
        self._snapshot: asyncio.Task[bool] | None = None
        self._logger = get_logger("rpc.catalog")
        self._task = Task("catalog", self._run)
        Gauge(
            "tlsy_catalog_age_seconds",
            "Since the registry last answered for its catalogue.",
            registry=telemetry.registry,
        ).set_function(self.age_s)

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return self._task.name

    async def start(self) -> None:
        """Begin to read; does not wait for the registry."""
        await self._task.start()

    async def stop(self, grace_s: float) -> None:
        """See `Component.stop`."""
        await self._task.stop(grace_s)

    async def wait(self) -> None:
        """See `Component.wait`."""
        await self._task.wait()

    @property
    def loaded(self) -> bool:
        """Whether there has been a complete snapshot."""
        return self._loaded.is_set()

    async def wait_ready(self) -> None:
        """Return once there has been a complete snapshot."""
        await self._loaded.wait()

    def missing(self) -> str | None:
        """A readiness check: what is missing, if anything is."""
        return None if self.loaded else "the catalogue of tenants has not been read yet"

    def age_s(self) -> float:
        """Seconds since the registry last answered."""
        return self._clock.monotonic() - self._last_success

    def tenant(self, tenant_id: TenantId) -> TenantEntry:
        """See `Catalog.tenant`.

        Raises:
            Unavailable: reason CATALOG_NOT_READY; nothing has been read yet.
        """
        self._require_loaded()
        return self._entries.tenant(tenant_id)

    def by_slug(self, slug: Slug) -> TenantEntry:
        """See `Catalog.by_slug`; raises as `tenant` does."""
        self._require_loaded()
        return self._entries.by_slug(slug)

    def __iter__(self) -> Iterator[TenantEntry]:
        return iter(self._entries)

    async def refresh(self, tenant_id: TenantId, stale_epoch: int) -> TenantEntry:
        """See `Catalog.refresh`."""
        self._require_loaded()
        try:
            known = self._entries.tenant(tenant_id)
        except UnknownTenant:
            if tenant_id in self._gone or self._entries.is_deleted(tenant_id):
                raise
        else:
            if known.epoch > stale_epoch:
                return known
        answered = await self.catch_up()
        try:
            entry = self._entries.tenant(tenant_id)
        except UnknownTenant:
            if answered:
                self._leave_gone(tenant_id)
            elif not self._entries.is_deleted(tenant_id):
                raise CatalogUnavailable(tenant_id) from None
            raise
        if entry.epoch <= stale_epoch and self._entries.is_unread(tenant_id):
            raise TenantNotUnderstood(tenant_id)
        return entry

    async def catch_up(self) -> bool:
        """See `Catalog.catch_up`. Who asks at once shares a snapshot; there are five a second at most."""
        asked = self._clock.monotonic()
        await self._clock.sleep(max(0.0, self._last_attempt + _MIN_BETWEEN_REFRESHES_S - asked))
        snapshot = self._snapshot
        if snapshot is None or self._last_attempt <= asked:
            return await self._fresh_snapshot(_REFRESH_TIMEOUT_S)
        await asyncio.wait({snapshot}, timeout=_REFRESH_TIMEOUT_S)
        return _was_good(snapshot)

    def on_event(self, event: CloudEvent) -> None:
        """Take a TenantChanged; other types are left alone."""
        if event.type == TENANT_CHANGED:
            self._take(TenantChanged.FromString(event.data).entry)

    async def snapshot(self) -> bool:
        """Read now what changed, and say whether that was possible."""
        return await self._fresh_snapshot(_SNAPSHOT_TIMEOUT_S)

    def _take(self, told: CatalogEntry) -> None:
        """Apply an entry; one that makes no sense here is left out and logged, the others still count."""
        try:
            self._entries.apply(entry_of(told))
        except ValueError as error:
            self._logger.error(  # noqa: TRY400 - what is wrong is the entry, not where it was read
                "entry not understood", tenant_id=told.tenant_id, error=str(error)
            )
            # Without an id it is nobody's.
            with suppress(ValueError):
                self._entries.leave_unread(TenantId(UUID(told.tenant_id)), Slug(told.slug), told.version)

    def _leave_gone(self, tenant_id: TenantId) -> None:
        if len(self._gone) == _MAX_GONE:
            self._gone.clear()
        self._gone.add(tenant_id)

    def _require_loaded(self) -> None:
        if not self.loaded:
            raise Unavailable("CATALOG_NOT_READY", "Tenants are not known here yet.", retry_after_s=0.5)

    async def _run(self, stopping: asyncio.Event) -> None:
        retry_s = _FIRST_RETRY_S
        while not stopping.is_set():
            good = await self._fresh_snapshot(_SNAPSHOT_TIMEOUT_S)
            pause_s = _SWEEP_S if good else retry_s
            retry_s = _FIRST_RETRY_S if good else min(retry_s * 2, _MAX_RETRY_S)
            await first_of(stopping, self._clock, pause_s)

    async def _fresh_snapshot(self, timeout_s: float) -> bool:
        """Wait for a snapshot that begins after this was called; whether there was a good one in time.

        One that is already being read may have passed the row that the caller wants, so the next one is begun
        after it, once for all who wait.
        """
        running = self._snapshot
        if running is not None and not running.done():
            await asyncio.wait({running}, timeout=timeout_s)
            if not running.done():
                return False
        if self._snapshot is running or self._snapshot is None:
            self._last_attempt = self._clock.monotonic()
            self._snapshot = asyncio.create_task(self._read_snapshot())
        snapshot = self._snapshot
        await asyncio.wait({snapshot}, timeout=timeout_s)
        return _was_good(snapshot)

    async def _read_snapshot(self) -> bool:
        """Read what changed since the last one; the resume token moves only when all of it was read."""
        resume_token = self._resume_token
        request = SnapshotCatalogRequest(resume_token=resume_token)
        try:
            async for part in self._registry.SnapshotCatalog(request, timeout=_SNAPSHOT_TIMEOUT_S):
                for entry in part.entries:
                    self._take(entry)
                resume_token = part.resume_token or resume_token
        except grpc.aio.AioRpcError as error:
            self._logger.warning(
                "catalogue not read",
                code=error.code().name,
                error=error.details(),
                age_s=round(self.age_s(), 1),
            )
            return False
        self._resume_token = resume_token
        self._last_success = self._clock.monotonic()
        self._loaded.set()
        return True


def _was_good(snapshot: asyncio.Task[bool] | None) -> bool:
    return snapshot is not None and snapshot.done() and not snapshot.cancelled() and snapshot.result()


async def first_of(stopping: asyncio.Event, clock: Clock, delay_s: float) -> None:
    """Return after `delay_s`, or as soon as `stopping` is set."""
    waits = {asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(clock.sleep(delay_s))}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiting in waits:
            waiting.cancel()


def entry_of(told: CatalogEntry) -> TenantEntry:
    """The entry that a message holds."""
    return TenantEntry(
        tenant_id=TenantId(UUID(told.tenant_id)),
        slug=Slug(told.slug),
        parent_id=TenantId(UUID(told.parent_id)) if told.parent_id else None,
        ancestors=tuple(TenantId(UUID(ancestor)) for ancestor in told.ancestor_ids),
        country=told.country.removeprefix("countries/"),
        state=TenantState(_tail(tenant_pb2.TenantState.Name(told.state), "TENANT_STATE_")),
        epoch=told.epoch,
        mode=IsolationMode(_tail(tenant_pb2.IsolationMode.Name(told.isolation_mode), "ISOLATION_MODE_")),
        placement=Placement(told.placement.cluster, told.placement.database, told.placement.schema),
        modules=frozenset(told.modules),
        entitlements=dict(told.entitlements),
        version=told.version,
        sector_profile=_tail(tenant_pb2.SectorProfile.Name(told.sector_profile), "SECTOR_PROFILE_").lower(),
        time_zone=told.time_zone,
        provider_access=_tail(tenant_pb2.ProviderAccess.Name(told.provider_access), "PROVIDER_ACCESS_"),
    )


def _tail(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)
