"""One installation without replicas; provisioners are made, and killed, by the test."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import TenantId, Uuid7
from tlsy.tenancy.cluster import MIGRATOR
from tlsy.tenancy.context import PLATFORM, IsolationMode, TenantState
from tlsy.tenancy.errors import LeaseLost
from tlsy.tenancy.executor import Executor
from tlsy.tenancy.lease import take_lease
from tlsy.tenant_registry.adapters.postgres import load_statements
from tlsy.tenant_registry.adapters.postgres.operations import PostgresOperations
from tlsy.tenant_registry.adapters.postgres.places import PostgresPlaces
from tlsy.tenant_registry.adapters.postgres.tenants import PostgresTenants
from tlsy.tenant_registry.consumers import Provisioner
from tlsy.tenant_registry.domain.kinds import ClusterKind, Verb
from tlsy.tenant_registry.domain.operation import Outcome, RetryPolicy
from tlsy.tenant_registry.domain.placement import Cluster, Country
from tlsy.tenant_registry.domain.registration import Draft, Surroundings, register
from tlsy.tenant_registry.handlers.catalogue import Catalogue
from tlsy.tenant_registry.handlers.effects import Effects
from tlsy.tenant_registry.handlers.run_operation import RunOperation
from tlsy.testkit.installation import CLUSTER, PATIENT

FR = Country(code="fr", display_name="France", allowed_cluster_countries=frozenset(), version=1)
HERE = Cluster(
    cluster_id=CLUSTER,
    region="local",
    country="fr",
    kind=ClusterKind.SHARED,
    secret_ref=CLUSTER,
    max_tenants=0,
    cordoned=False,
    tenant_count=0,
    reachable=True,
)
MODES = [IsolationMode.SHARED, IsolationMode.SCHEMA, IsolationMode.DEDICATED]


class Killed(BaseException):
    """A process ended here."""


class Deaf:
    """Signals that nobody gives."""

    @contextmanager
    def watch(self, operation_ids):
        yield asyncio.Event()


class Workshop:
    """What a registry's worker has, for one test."""

    def __init__(self, installation):
        self.installation = installation
        self.clock = SystemClock()
        ids = Uuid7(self.clock, os.urandom)
        statements = load_statements()
        self.catalogue = Catalogue(
            tenancy=installation.tenancy("tenant_registry"),
            tenants=PostgresTenants(statements),
            places=PostgresPlaces(statements),
            operations=PostgresOperations(statements),
            signals=Deaf(),
            effects=Effects(self.clock, ids),
            clock=self.clock,
            ids=ids,
        )
        self.databases = installation.databases(MIGRATOR, PATIENT)
        policy = RetryPolicy(max_attempts=3, first_delay_s=0.01, max_delay_s=0.01)
        self.run_operation = RunOperation(self.catalogue, policy, lambda: 1.0, 30)
        self.made = []

    async def lease(self, ttl_s=60.0, holder="a test"):
        async with self.databases.acquire(self.installation.control) as connection:
            return await take_lease(connection, "provisioner", holder, ttl_s)

    def executor(self, lease):
        return Executor(
            databases=self.databases,
            control=self.installation.control,
            schemas=self.installation.schemas,
            lease=lease,
            clock=self.clock,
            kept_in_control=("tenant_registry",),
        )

    def provisioner(self, holder, placements=None, duties=()):
        return Provisioner(
            self.catalogue,
            self.run_operation,
            databases=self.installation.databases(MIGRATOR, PATIENT),
            control=self.installation.control,
            placements=placements or self.executor,
            due=asyncio.Event(),
            duties=duties,
            holder=holder,
            lease_s=0.6,
            in_flight=4,
        )

    async def create(self, mode, slug="acme"):
        """A registered tenant and its operation."""
        catalogue = self.catalogue
        around = Surroundings(
            country=FR,
            line=(),
            below=(),
            clusters=(HERE,),
            time_zones=frozenset({"Etc/UTC"}),
            base_domain="tlsy.example",
            by_platform=True,
        )
        draft = Draft(slug=slug, display_name="Acme", country="fr", isolation_mode=mode, overrides={})
        wanted = register(
            draft,
            around,
            tenant_id=TenantId(catalogue.ids()),
            now=self.clock.now(),
            shared_database=self.installation.common.database,
        )
        async with catalogue.writing() as tx:
            await catalogue.places.add_country(tx, FR)
            await catalogue.places.add_cluster(tx, HERE)
            await catalogue.places.take_room(tx, CLUSTER)
            tenant = await catalogue.tenants.insert(tx, wanted)
            assert tenant is not None
            operation = await catalogue.start(
                tx, Verb.CREATE, owner=None, target=tenant, now=self.clock.now()
            )
        if mode is IsolationMode.DEDICATED:
            self.made.append(tenant.database)
        return tenant, operation

    async def seen(self, tenant, operation):
        async with self.catalogue.tenancy.control(PLATFORM, write=False) as tx:
            return (
                await self.catalogue.tenants.by_id(tx, tenant.tenant_id),
                await self.catalogue.operations.get(tx, operation.operation_id),
            )

    async def until_done(self, tenant, operation):
        async with asyncio.timeout(20):
            while True:
                _, at = await self.seen(tenant, operation)
                if at.outcome is not Outcome.RUNNING:
                    # Both change in one transaction, but were read in two: the tenant is read again.
                    return await self.seen(tenant, operation)
                await asyncio.sleep(0.02)


class Mortal:
    """An executor whose process dies before or after its nth action."""

    def __init__(self, executor, actions, *, after):
        self._executor = executor
        self._left = actions
        self._after = after
        self.reached = False

    async def converge(self, desired, progress=None):
        from tlsy.tenancy.provisioning import plan  # noqa: PLC0415

        for action in plan(desired, await self._executor.observe(desired)):
            if self._left == 0 and not self._after:
                self.reached = True
                raise Killed
            await progress(action)
            await self._executor.execute(desired, action)
            if self._left == 0:
                self.reached = True
                raise Killed
            self._left -= 1
        return ()


@pytest.fixture
async def workshop(installation):
    made = Workshop(installation)
    yield made
    maintenance = await installation.connect(MIGRATOR, replace(installation.control, database="postgres"))
    for database in made.made:
        await maintenance.execute(f"drop database if exists {database} with (force)")


@pytest.mark.parametrize("mode", MODES)
async def test_killed_at_any_action_the_next_provisioner_ends_with_the_same_tenant(workshop, mode):
    reached, number = True, 0
    while reached:
        tenant, operation = await workshop.create(mode, f"acme-{number}")
        for after in (False, True):
            mortal = Mortal(workshop.executor(await workshop.lease()), number, after=after)
            with suppress(Killed):
                await workshop.run_operation.run(operation, mortal)
            reached = mortal.reached
            if not reached:
                break
        await workshop.run_operation.run(operation, workshop.executor(await workshop.lease()))
        seen, at = await workshop.seen(tenant, operation)
        assert (seen.state, seen.epoch, at.outcome) == (TenantState.ACTIVE, 1, Outcome.SUCCEEDED), number
        number += 1
    assert number >= 2


async def test_of_two_provisioners_one_works_and_the_other_takes_over_when_it_dies(workshop):
    first, second = (asyncio.create_task(workshop.provisioner(name).run(asyncio.Event())) for name in "ab")
    early = await workshop.until_done(*await workshop.create(IsolationMode.SHARED, "acme-early"))
    first.cancel()
    late = await workshop.until_done(*await workshop.create(IsolationMode.SCHEMA, "acme-late"))
    second.cancel()
    await asyncio.wait({first, second})
    assert [seen.state for seen, _ in (early, late)] == [TenantState.ACTIVE] * 2


async def test_who_lost_the_lease_changes_nothing_more(workshop):
    tenant, operation = await workshop.create(IsolationMode.SCHEMA)
    stale = workshop.executor(await workshop.lease(0.0, "the former"))
    await workshop.lease(60.0, "the next")
    with pytest.raises(LeaseLost):
        await workshop.run_operation.run(operation, stale)
    seen, at = await workshop.seen(tenant, operation)
    assert (seen.state, at.attempts, at.outcome) == (TenantState.PROVISIONING, 0, Outcome.RUNNING)


async def test_a_creation_that_keeps_failing_is_given_up_with_its_reason(workshop):
    class Failing:
        async def converge(self, desired, progress=None):
            raise OSError("the disk is full")

    tenant, operation = await workshop.create(IsolationMode.SHARED)
    stopping = asyncio.Event()
    running = asyncio.create_task(workshop.provisioner("a", lambda _: Failing()).run(stopping))
    seen, at = await workshop.until_done(tenant, operation)
    stopping.set()
    await running
    assert (seen.state, seen.failure_reason, at.attempts) == (TenantState.FAILED, "PROVISIONING_ERROR", 3)
