"""What can go wrong between a service and its tenants' databases.

`Retryable` and `Permanent` are the two things that a caller may branch on without knowing the reason.
`reason` is stable and UPPER_SNAKE. What a statement was refused for by its own fault stays asyncpg's error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.tenancy.context import Placement


class TenancyError(Exception):
    """Any error of this package."""

    reason: ClassVar[str]


class Retryable(TenancyError):  # noqa: N818 - an adjective that callers branch on
    """The same call may succeed later, unchanged."""


class Permanent(TenancyError):  # noqa: N818 - as above
    """The same call will fail again."""


class StaleEpoch(Retryable):
    """The tenant's placement or writability changed: resolve it again."""

    reason = "STALE_EPOCH"


class PlacementUnavailable(Retryable):
    """The database cannot be reached, was lost, is behind, or has no connection left within the deadline.

    Or it fails in what is no statement's doing (its disk is full, its pages are corrupt) or takes no writes.

    `outcome_unknown`: it was lost during COMMIT, so the transaction may have happened; repeat it only under
    an idempotency key or an inbox row. `refused`: connecting was tried and failed.
    """

    reason = "PLACEMENT_UNAVAILABLE"

    def __init__(
        self, placement: Placement, why: str, *, outcome_unknown: bool = False, refused: bool = False
    ) -> None:
        super().__init__(f"database {placement.database} on cluster {placement.cluster}: {why}")
        self.placement = placement
        self.outcome_unknown = outcome_unknown
        self.refused = refused


class DatabaseBusy(Retryable):
    """A lock was not had in time, a statement took too long, or two transactions excluded each other.

    Or PostgreSQL met what it did not expect itself. Nothing was committed.
    """

    reason = "DATABASE_BUSY"

    def __init__(self, placement: Placement, why: str) -> None:
        super().__init__(f"database {placement.database} on cluster {placement.cluster}: {why}")
        self.placement = placement


class LeaseLost(Retryable):
    """Another worker holds the lease under a higher fencing token."""

    reason = "LEASE_LOST"


class OutboxNotDrained(Retryable):
    """Events of a tenant that is to be erased are not published yet; they are evidence, and bills."""

    reason = "OUTBOX_NOT_DRAINED"

    def __init__(self, outbox: str) -> None:
        super().__init__(f"{outbox} has events that are not published yet")


class NotWritable(Permanent):
    """The tenant is suspended, being deleted, or closed for a move."""

    reason = "NOT_WRITABLE"


class UnknownTenant(Permanent):
    """The catalogue has no such tenant."""

    reason = "UNKNOWN_TENANT"

    def __init__(self, tenant: UUID | str) -> None:
        super().__init__(f"no tenant {tenant}")
        self.tenant = tenant


class CatalogUnavailable(Retryable):
    """The catalogue's copy has no such tenant, and its owner could not be asked whether there is one."""

    reason = "CATALOG_UNAVAILABLE"

    def __init__(self, tenant: UUID | str) -> None:
        super().__init__(f"tenant {tenant} is not known here, and the catalogue's owner did not answer")
        self.tenant = tenant


class TenantNotUnderstood(Retryable):
    """The tenant is there, but what the catalogue's owner says of it is newer than this release can read.

    A replica of a newer release can, and so can this one after its upgrade.
    """

    reason = "TENANT_NOT_UNDERSTOOD"

    def __init__(self, tenant: UUID | str) -> None:
        super().__init__(f"what the catalogue says of tenant {tenant} cannot be read here")
        self.tenant = tenant


class UnknownCluster(Permanent):
    """No cluster of this name is configured."""

    reason = "UNKNOWN_CLUSTER"


class RequestIdReused(Permanent):
    """The request_id was used before with another body."""

    reason = "REQUEST_ID_REUSED"


class PlacementFull(Permanent):
    """The database has as many relations as it may."""

    reason = "PLACEMENT_FULL"

    def __init__(self, placement: Placement, why: str) -> None:
        super().__init__(f"database {placement.database} on cluster {placement.cluster}: {why}")
        self.placement = placement
