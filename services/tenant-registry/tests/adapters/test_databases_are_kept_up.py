"""The worker's duties over an installation with a tenant of each mode, and one whose database is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from tlsy.tenancy.context import PLATFORM, IsolationMode, TenantState
from tlsy.tenancy.executor import MAX_RELATIONS
from tlsy.tenancy.migrations import Schemas, ServiceMigrations
from tlsy.tenant_registry.consumers import Duty
from tlsy.tenant_registry.handlers.upgrade import Upgrade
from tlsy.tenant_registry.handlers.upkeep import Upkeep
from tlsy.tenant_registry.migrations import MIGRATIONS
from tlsy.testkit.clock import FakeClock
from tlsy.testkit.plugin import built_templates

from .workshop import FR, HERE, Workshop

EVENTS = """
create table incidents (tenant_id uuid not null, resolved_at timestamptz not null,
    primary key (tenant_id, resolved_at));
select tlsy.protect('incidents');
create table events (tenant_id uuid not null, ts timestamptz not null, primary key (tenant_id, ts))
partition by range (ts);
select tlsy.protect('events');
select tlsy.partition_by_time('events', keep_days => 60, behind_days => 40);
"""
REVISION = """
from alembic import op
revision, down_revision = {0!r}, {1!r}
def upgrade():
    op.execute({2!r})
"""


@pytest.fixture(scope="session")
def log_book(tmp_path_factory):
    """Makes a service with a table of events, and with whatever more revisions."""

    def make(*more: str) -> ServiceMigrations:
        root = tmp_path_factory.mktemp("log_book")
        versions = root / "tenant" / "versions"
        versions.mkdir(parents=True)
        before = None
        for number, text in enumerate((EVENTS, *more), 1):
            (versions / f"{number:04}.py").write_text(REVISION.format(f"{number:04}", before, text))
            before = f"{number:04}"
        return ServiceMigrations(
            service="log-book", package="log_book", root=root, tenant_grants={"events": ("select", "insert")}
        )

    return make


@pytest.fixture(scope="session")
def service_migrations(log_book):
    return (MIGRATIONS, log_book())


@pytest.fixture(scope="session")
def database_templates(postgres_server, service_migrations):
    yield from built_templates(postgres_server, service_migrations)


class Worker(Workshop):
    """With tenants that are placed, and the duties of a worker."""

    def __init__(self, installation):
        super().__init__(installation)
        self.fake = FakeClock(self.clock.now())
        self.tenants = []
        self._connections = {}
        self.metrics = CollectorRegistry()
        self.upkeep = self.keeping_up(metrics=self.metrics)

    async def placed(self, mode, slug):
        tenant, operation = await self.create(mode, slug)
        await self.run_operation.run(operation, self.executor(await self.lease()))
        return tenant

    def keeping_up(self, *, metrics=None, max_relations=MAX_RELATIONS):
        return Upkeep(
            replace(self.catalogue, clock=self.fake),
            self.databases,
            self.installation.control,
            timedelta(days=30),
            shared_database=self.installation.common.database,
            metrics=metrics or CollectorRegistry(),
            max_relations=max_relations,
        )

    def upgrade(self, schemas, percent=100):
        return Upgrade(
            self.catalogue,
            self.databases,
            schemas,
            self.installation.control,
            percent=percent,
            metrics=self.metrics,
        )

    async def at(self, tenant):
        """An administrator's connection to where the tenant is."""
        if tenant.database not in self._connections:
            self._connections[tenant.database] = await self.installation.connect(
                None, replace(self.installation.common, database=tenant.database)
            )
        return self._connections[tenant.database]

    async def drop(self, tenant):
        await self.databases.drop_idle(replace(self.installation.common, database=tenant.database))
        maintenance = await self.installation.connect(
            None, replace(self.installation.control, database="postgres")
        )
        await maintenance.execute(f"drop database if exists {tenant.database} with (force)")


@pytest.fixture
async def worker(installation):
    made = Worker(installation)
    made.tenants = [await made.placed(mode, f"acme-{mode.lower()}") for mode in IsolationMode]
    yield made
    for tenant in made.tenants:
        if tenant.isolation_mode is IsolationMode.DEDICATED:
            await made.drop(tenant)


async def last_partition(connection, table):
    return await connection.fetchval(
        "select max(relname) from pg_class c join pg_inherits i on i.inhrelid = c.oid "
        "where i.inhparent = $1::text::regclass",
        table,
    )


async def test_partitions_are_ahead_in_every_database_but_one_that_is_away(worker):
    away = await worker.placed(IsolationMode.DEDICATED, "acme-away")
    await worker.drop(away)
    worker.fake.advance(timedelta(days=40).total_seconds())
    await worker.upkeep.maintain_all()
    for tenant in worker.tenants:
        ahead = worker.fake.now() + timedelta(days=7)
        day = "%Y%m" if tenant.isolation_mode is IsolationMode.SCHEMA else "%Y%m%d"
        last = await last_partition(await worker.at(tenant), f"{tenant.schema}.events")
        assert last == f"events_p{ahead.strftime(day)}"
    ahead = worker.fake.now() + timedelta(days=2)
    control = await worker.installation.connect(None, worker.installation.control)
    assert await last_partition(control, "tenant_registry.outbox") == f"outbox_p{ahead:%Y%m%d}"
    assert worker.metrics.get_sample_value("tlsy_partitions_ahead_days") == 3


async def test_partitions_are_ahead_for_the_first_tenant_of_a_cluster_as_well(installation):
    worker = Worker(installation)
    async with worker.catalogue.writing() as tx:
        await worker.catalogue.places.add_country(tx, FR)
        await worker.catalogue.places.add_cluster(tx, HERE)
    worker.fake.advance(timedelta(days=40).total_seconds())
    await worker.upkeep.maintain_all()
    common = await installation.connect(None, installation.common)
    ahead = worker.fake.now() + timedelta(days=7)
    assert await last_partition(common, "shared.events") == f"events_p{ahead:%Y%m%d}"


async def test_a_tenant_loses_what_is_past_its_retention_and_the_others_keep_theirs(worker):
    brief = await worker.placed(IsolationMode.SHARED, "acme-brief")
    control = await worker.installation.connect(None, worker.installation.control)
    await control.execute(
        "update tenant_registry.tenants set entitlements = entitlements || '{\"retention_days\": 1}' "
        "where subject_id = $1",
        brief.tenant_id,
    )
    await worker.upkeep.maintain_all()  # partitions of days that are past
    left = {}
    tables = ("events", "incidents")
    for tenant in (brief, *worker.tenants):
        connection = await worker.at(tenant)
        for table in tables:
            await connection.execute(
                f"insert into {tenant.schema}.{table} "
                "select $1, $2::timestamptz - make_interval(hours => 20 * n) from generate_series(0, 3) n",
                tenant.tenant_id,
                worker.fake.now(),
            )
    await worker.upkeep.maintain_all()
    for tenant in (brief, *worker.tenants):
        connection = await worker.at(tenant)
        rows = "select count(*) from {}.{} where tenant_id = $1"
        left[tenant.slug] = [
            await connection.fetchval(rows.format(tenant.schema, table), tenant.tenant_id) for table in tables
        ]
    kept = {"acme-shared": [4, 4], "acme-schema": [4, 4], "acme-dedicated": [4, 4]}
    assert left == {"acme-brief": [2, 2], **kept}


async def test_who_places_tenants_knows_whether_a_common_database_takes_more_schemas(worker):
    async def full():
        async with worker.catalogue.tenancy.control(PLATFORM, write=False) as tx:
            (at,) = await worker.catalogue.places.clusters(tx)
            return at.full(IsolationMode.SCHEMA)

    found = []
    for most in (9, 10**6):
        await worker.keeping_up(max_relations=most).maintain_all()
        found.append(await full())
    assert found == [True, False]


async def test_answers_to_requests_are_forgotten_when_they_expire(worker):
    for tenant in worker.tenants:
        connection = await worker.at(tenant)
        await connection.execute(
            "insert into log_book.idempotency values ($1, 'p', 'm', gen_random_uuid(), '', '', $2)",
            tenant.tenant_id,
            worker.fake.now() + timedelta(hours=24),
        )
    counts = []
    for hours in (23, 2):
        worker.fake.advance(timedelta(hours=hours).total_seconds())
        await worker.upkeep.maintain_all()
        for tenant in worker.tenants[1:]:
            connection = await worker.at(tenant)
            counts.append(await connection.fetchval("select count(*) from log_book.idempotency"))
    assert counts == [2, 1, 0, 0]


async def test_of_whom_nothing_was_placed_nothing_stays_in_the_control_database_either(worker):
    tenant, operation = await worker.create(IsolationMode.SCHEMA, "acme-full")
    await worker.run_operation.run(operation, worker.executor(await worker.lease(), max_relations=9))
    await worker.fetch(
        "insert into log_book.idempotency values ($1, 'p', 'm', gen_random_uuid(), '', '', now())",
        tenant.tenant_id,
    )
    gone = await worker.closed(tenant)
    await worker.run_operation.run(gone[1], worker.executor(await worker.lease()))
    seen, _ = await worker.seen(*gone)
    assert (seen.state, seen.placed) == (TenantState.DELETED, False)
    assert await worker.fetch("select from log_book.idempotency where tenant_id = $1", tenant.tenant_id) == []


async def coloured(worker, tenant):
    """Whether the tenant's table has the column of the next version."""
    found = await (await worker.at(tenant)).fetch(
        "select from information_schema.columns "
        "where table_schema = $1 and table_name = 'events' and column_name = 'colour'",
        tenant.schema,
    )
    return bool(found)


@pytest.fixture
def next_version(log_book):
    """The schemas of this service's next version."""
    return Schemas((MIGRATIONS, log_book("alter table events add column colour text default 'red'")))


async def test_an_upgrade_reaches_every_tenant_but_one_that_fails_and_is_named(worker, next_version):
    odd = await worker.placed(IsolationMode.SCHEMA, "acme-odd")
    await (await worker.at(odd)).execute(f"alter table {odd.schema}.events add colour text")
    upgrade, lease = worker.upgrade(next_version), await worker.lease()
    with capture_logs() as lines:
        await upgrade.run(lease)
    # Rows of SHARED tenants are in tables that the installation of the common database migrates.
    assert [await coloured(worker, tenant) for tenant in worker.tenants] == [False, True, True]
    named = [line["tenant"] for line in lines if line["event"] == "tenant stays behind"]
    assert (named, worker.metrics.get_sample_value("tlsy_tenants_behind")) == (["acme-odd"], 1)
    await (await worker.at(odd)).execute(f"alter table {odd.schema}.events drop colour")
    await upgrade.run(lease)
    assert await coloured(worker, odd)
    assert worker.metrics.get_sample_value("tlsy_tenants_behind") == 0


async def test_an_upgrade_that_is_paused_touches_nobody_and_counts_them(worker, next_version):
    await worker.upgrade(next_version, percent=0).run(await worker.lease())
    assert not any([await coloured(worker, tenant) for tenant in worker.tenants])
    assert worker.metrics.get_sample_value("tlsy_tenants_behind") == 2


async def test_a_worker_upgrades_by_itself(worker, next_version):
    upgrade, stopping = worker.upgrade(next_version), asyncio.Event()
    duty = Duty(name="upgrade", every_s=0.05, run=upgrade.run)
    await worker.lease(0.0)  # which ends it
    running = asyncio.create_task(worker.provisioner("a", duties=(duty,)).run(stopping))
    async with asyncio.timeout(60):
        while not all([await coloured(worker, tenant) for tenant in worker.tenants[1:]]):
            await asyncio.sleep(0.05)
    stopping.set()
    await running
