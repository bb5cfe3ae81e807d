"""Where a tenant's rows are, and the context in which they are read and written."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tlsy.runtime.ids import Slug, TenantId

#: The schema with the rows of all SHARED tenants of a common database.
SHARED_SCHEMA: Final = "shared"
#: The schema with the tenant's rows in a DEDICATED database.
DEDICATED_SCHEMA: Final = "tenant"


class IsolationMode(StrEnum):
    """How a tenant's rows are kept apart."""

    SHARED = "SHARED"
    SCHEMA = "SCHEMA"
    DEDICATED = "DEDICATED"


class TenantState(StrEnum):
    """The tenant's life; only ACTIVE ones are written by services."""

    PROVISIONING = "PROVISIONING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DELETING = "DELETING"
    DELETED = "DELETED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Placement:
    """Where rows are: a cluster by name, a database on it, a schema in that."""

    cluster: str
    database: str
    schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantContext:
    """What it takes to enter a tenant: a stale `epoch` is refused by the database."""

    tenant_id: TenantId
    slug: Slug
    epoch: int
    placement: Placement
    mode: IsolationMode


class Platform(Enum):
    """The scope that sees all tenants' rows of a service; it exists only in the control database."""

    PLATFORM = "platform"


PLATFORM: Final = Platform.PLATFORM


def tenant_schema(tenant_id: TenantId) -> str:
    """The name of a SCHEMA tenant's schema and of a DEDICATED tenant's database: `t_` and 32 hex digits."""
    return f"t_{tenant_id.hex}"
