"""Starts to provision a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.longrunning import operations_pb2

from tlsy.rpc.errors import AlreadyExists, PermissionDenied
from tlsy.rpc.idempotency import answer_once
from tlsy.runtime.ids import TenantId
from tlsy.tenancy.context import PLATFORM
from tlsy.tenant_registry.domain.codes import is_country
from tlsy.tenant_registry.domain.errors import refuse
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.operation import started, succeeded
from tlsy.tenant_registry.domain.registration import Surroundings, draft_violations, register
from tlsy.tenant_registry.domain.slug import may_be_slug
from tlsy.tenant_registry.handlers.catalogue import refuse_closed
from tlsy.tenant_registry.handlers.refusals import clusters_fill, refusals

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rpc.call import Call
    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.domain.operation import Operation
    from tlsy.tenant_registry.domain.registration import Draft
    from tlsy.tenant_registry.domain.tenant import Tenant
    from tlsy.tenant_registry.handlers.catalogue import Catalogue


_MAX_CHOICES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What a tenant's settings are checked against.

    Attributes:
        base_domain: tenants' sub-domains are below it.
        shared_database: name of the common tenant database of every cluster.
        time_zones: IANA names that this machine knows.
    """

    base_domain: str
    shared_database: str
    time_zones: frozenset[str]


class CreateTenant:
    """Registers the tenant and queues its provisioning, in one transaction.

    Everything that is wrong with the request is told at once. Of two creations of one slug, or of two slugs
    that look alike, one succeeds: the second waits for the first's transaction and finds the slug taken.
    """

    def __init__(self, catalogue: Catalogue, installation: Installation) -> None:
        self._catalogue = catalogue
        self._installation = installation

    async def run(
        self,
        call: Call,
        draft: Draft,
        encode: Callable[[Operation, Tenant], operations_pb2.Operation],
        *,
        validate_only: bool,
    ) -> operations_pb2.Operation:
        """The operation, running; done where only validated.

        Raises:
            InvalidArgument: with every violation.
            PermissionDenied: PARENT_NOT_OWN.
            NotWritable: a suspended tenant asks for a sub-tenant.
            AlreadyExists: SLUG_TAKEN, SLUG_CONFUSABLE, HOST_NAME_TAKEN.
            FailedPrecondition: as `register`.
            Unavailable: as `register`, or CLUSTERS_CHANGING.
        """
        if validate_only:
            return await self._validate(call, draft, encode)
        async with self._catalogue.writing() as tx:

            async def act() -> operations_pb2.Operation:
                return encode(*await self._create(tx, call, draft))

            return await answer_once(tx, call, self._catalogue.clock.now(), operations_pb2.Operation, act)

    async def _create(self, tx: UnitOfWork, call: Call, draft: Draft) -> tuple[Operation, Tenant]:
        catalogue = self._catalogue
        wanted = await self._placed(tx, call, draft)
        tenant = await catalogue.tenants.insert(tx, wanted)
        if tenant is None:
            raise await self._slug_taken(tx, draft.slug)
        operation = await catalogue.start(
            tx, Verb.CREATE, owner=call.tenant_id, target=tenant, now=tenant.created_at
        )
        catalogue.effects.tenant_changed(tx, tenant, "created")
        details = {
            "country": tenant.country,
            "isolation_mode": str(tenant.isolation_mode),
            "cluster": tenant.cluster_id,
            "tier": str(tenant.tier),
            "parent": tenant.parent_slug,
        }
        catalogue.effects.audited(tx, call, f"tenants/{tenant.slug}", details, tenant=tenant)
        return operation, tenant

    async def _placed(self, tx: UnitOfWork, call: Call, draft: Draft) -> Tenant:
        """The tenant, with room on its cluster; another is chosen where somebody else took the last room."""
        for _ in range(_MAX_CHOICES):
            wanted = await self._register(tx, call, draft)
            if await self._catalogue.places.take_room(tx, wanted.cluster_id):
                return wanted
        raise clusters_fill()

    async def _validate(
        self,
        call: Call,
        draft: Draft,
        encode: Callable[[Operation, Tenant], operations_pb2.Operation],
    ) -> operations_pb2.Operation:
        async with self._catalogue.tenancy.control(PLATFORM, write=True) as tx:
            tenant = await self._register(tx, call, draft)
            if await self._catalogue.tenants.slug_holder(tx, draft.slug) is not None:
                raise await self._slug_taken(tx, draft.slug)
            await self._catalogue.tenants.check_host_names(tx, tenant)
        operation = started(
            Verb.CREATE,
            operation_id=self._catalogue.ids(),
            owner_id=call.tenant_id or tenant.tenant_id,
            target_id=tenant.tenant_id,
            target_slug=tenant.slug,
            now=tenant.created_at,
        )
        return encode(succeeded(operation), tenant)

    async def _register(self, tx: UnitOfWork, call: Call, draft: Draft) -> Tenant:
        around = await self._look_around(tx, call, draft)
        with refusals():
            refuse(draft_violations(draft, around))
            return register(
                draft,
                around,
                tenant_id=TenantId(self._catalogue.ids()),
                now=self._catalogue.clock.now(),
                shared_database=self._installation.shared_database,
            )

    async def _look_around(self, tx: UnitOfWork, call: Call, draft: Draft) -> Surroundings:
        tenants, places = self._catalogue.tenants, self._catalogue.places
        line: tuple[Tenant, ...] = ()
        if not call.of_platform and draft.parent_slug != call.required_tenant().slug:
            raise PermissionDenied("PARENT_NOT_OWN", "A tenant creates sub-tenants below itself only.")
        country = await places.country(tx, draft.country) if is_country(draft.country) else None
        if may_be_slug(draft.parent_slug):
            parent = await tenants.by_slug(tx, draft.parent_slug)
            line = () if parent is None else tuple(await tenants.lock_line(tx, parent.tenant_id))
            if line:
                refuse_closed(call, line[-1])
        return Surroundings(
            country=country,
            line=line,
            below=tuple([await tenants.count_descendants(tx, each.tenant_id) for each in line]),
            clusters=tuple(await places.clusters(tx)),
            time_zones=self._installation.time_zones,
            base_domain=self._installation.base_domain,
            by_platform=call.of_platform,
        )

    async def _slug_taken(self, tx: UnitOfWork, slug: str) -> AlreadyExists:
        if await self._catalogue.tenants.slug_holder(tx, slug) == slug:
            return AlreadyExists("SLUG_TAKEN", "A tenant has this slug, or had it and is not erased yet.")
        return AlreadyExists("SLUG_CONFUSABLE", "A tenant has a slug that is easily taken for this one.")
