"""What an installation begins with: the provider's country, the first cluster, the provider's own tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import asyncpg

from tlsy.runtime.ids import PLATFORM_SLUG, PLATFORM_TENANT_ID
from tlsy.runtime.logging import get_logger
from tlsy.tenancy.context import PLATFORM, IsolationMode
from tlsy.tenancy.errors import TenancyError
from tlsy.tenant_registry.domain.kinds import SectorProfile, Tier, Verb
from tlsy.tenant_registry.domain.modules import REQUIRES
from tlsy.tenant_registry.domain.registration import Draft, Surroundings, register

if TYPE_CHECKING:
    import asyncio

    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.domain.placement import Cluster, Country
    from tlsy.tenant_registry.handlers.catalogue import Catalogue
    from tlsy.tenant_registry.handlers.create_tenant import Installation

_RETRY_S: Final = 0.5


class Bootstrap:
    """Done once per installation, in one transaction, by the first replica; the others find it done."""

    def __init__(
        self, catalogue: Catalogue, installation: Installation, country: Country, cluster: Cluster
    ) -> None:
        self._catalogue = catalogue
        self._installation = installation
        self._country = country
        self._cluster = cluster
        self._done = False
        self._logger = get_logger("registry.bootstrap")

    def missing(self) -> str | None:
        """A readiness check."""
        return None if self._done else "the control database has not been reached yet"

    async def run(self, stopping: asyncio.Event) -> None:
        """Until it is done, then until `stopping`."""
        while not (self._done or stopping.is_set()):
            try:
                await self.once()
            except (TenancyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                self._logger.warning("not begun yet", error=str(error))
                await self._catalogue.clock.sleep(_RETRY_S)
        await stopping.wait()

    async def once(self) -> None:
        """Do what is not done yet. Raises what the database raises."""
        catalogue = self._catalogue
        async with catalogue.tenancy.control(PLATFORM, write=True) as tx:
            if await catalogue.tenants.by_id(tx, PLATFORM_TENANT_ID) is None:
                await catalogue.places.add_country(tx, self._country)
                await catalogue.places.add_cluster(tx, self._cluster)
                # Of several replicas that begin at once the second finds the tenant of the first, once it
                # has the cluster.
                await catalogue.places.lock_cluster(tx, self._cluster.cluster_id)
                if await catalogue.tenants.by_id(tx, PLATFORM_TENANT_ID) is None:
                    await self._register(tx)
        self._done = True

    async def _register(self, tx: UnitOfWork) -> None:
        catalogue, now = self._catalogue, self._catalogue.clock.now()
        wanted = register(
            self._draft(),
            self._around(),
            tenant_id=PLATFORM_TENANT_ID,
            now=now,
            shared_database=self._installation.shared_database,
        )
        await catalogue.places.take_room(tx, self._cluster.cluster_id)
        tenant = await catalogue.tenants.insert(tx, wanted)
        if tenant is None:
            raise AssertionError("the slug of the platform is reserved")
        await catalogue.start(tx, Verb.CREATE, owner=PLATFORM_TENANT_ID, target=tenant, now=now)
        catalogue.effects.tenant_changed(tx, tenant, "created")
        catalogue.effects.audited_duty(tx, "bootstrap", tenant, {"country": tenant.country})

    def _draft(self) -> Draft:
        return Draft(
            slug=PLATFORM_SLUG,
            display_name="Platform",
            country=self._country.code,
            sector_profile=SectorProfile.SME,
            isolation_mode=IsolationMode.SHARED,
            tier=Tier.ENTERPRISE,
            cluster_id=self._cluster.cluster_id,
            modules=frozenset(REQUIRES),
            overrides={},
        )

    def _around(self) -> Surroundings:
        return Surroundings(
            country=self._country,
            line=(),
            below=(),
            clusters=(self._cluster,),
            time_zones=self._installation.time_zones,
            base_domain=self._installation.base_domain,
            by_platform=True,
        )
