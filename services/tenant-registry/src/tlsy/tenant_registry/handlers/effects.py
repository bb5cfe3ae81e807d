"""What goes along with a change, in its transaction: telling all services, an audit record, usage facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from tlsy.contracts.cloudevents import CloudEvent
from tlsy.contracts.events import TENANT_CHANGED
from tlsy.contracts.tenant_registry.events.v1 import events_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2
from tlsy.rpc.audit import AuditTrail
from tlsy.runtime.ids import PLATFORM_TENANT_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

    from tlsy.rpc.call import Call
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import Uuid7
    from tlsy.tenancy.unit_of_work import UnitOfWork
    from tlsy.tenant_registry.domain.tenant import Tenant

#: What changed; neither secrets nor personal data.
Details: TypeAlias = "Mapping[str, str | bool | int]"

SERVICE: Final = "tenant-registry"


class Effects:
    """Writes to the outbox of the transaction at hand."""

    def __init__(self, clock: Clock, ids: Uuid7) -> None:
        self._clock = clock
        self._ids = ids
        self._trail = AuditTrail(SERVICE, clock, ids)

    def tenant_changed(self, tx: UnitOfWork, tenant: Tenant, cause: str) -> None:
        """Tell every service; `tenant` as it was saved, with its version."""
        changed = events_pb2.TenantChanged(entry=catalog_entry(tenant), cause=cause)
        self._publish(tx, TENANT_CHANGED, changed, tenant)

    def audited(
        self, tx: UnitOfWork, call: Call, resource: str, details: Details, *, tenant: Tenant | None = None
    ) -> None:
        """One record of a call, in the log of `tenant`, else in the platform's."""
        tx.publish(
            self._trail.recorded(
                call,
                resource=resource,
                tenant_id=PLATFORM_TENANT_ID if tenant is None else tenant.tenant_id,
                epoch=1 if tenant is None else tenant.epoch,
                details=details,
            )
        )

    def audited_duty(self, tx: UnitOfWork, duty: str, tenant: Tenant, details: Details) -> None:
        """One record of what this service did by itself, e.g. "provision", in the log of `tenant`."""
        resource = f"tenants/{tenant.slug}"
        tx.publish(
            self._trail.duty(
                duty, resource=resource, tenant_id=tenant.tenant_id, epoch=tenant.epoch, details=details
            )
        )

    def erased(self, tx: UnitOfWork, tenant: Tenant, asked_by: str) -> None:
        """One record in the platform's log: the tenant's own, with who asked for it, is erased as well."""
        details: Details = {
            "tenant_id": str(tenant.tenant_id),
            "asked_by": asked_by,
            "verified_empty": True,
        }
        resource = f"tenants/{tenant.slug}"
        tx.publish(
            self._trail.duty(
                "erase", resource=resource, tenant_id=PLATFORM_TENANT_ID, epoch=1, details=details
            )
        )

    def used(self, tx: UnitOfWork, tenant: Tenant, meter: str, quantity: int) -> None:
        """One usage fact."""
        tx.publish(self._trail.usage(tenant.tenant_id, tenant.epoch, meter, quantity))

    def _publish(self, tx: UnitOfWork, event_type: str, message: Message, tenant: Tenant) -> None:
        tx.publish(
            CloudEvent(
                id=self._ids(),
                type=event_type,
                source=SERVICE,
                tenant_id=tenant.tenant_id,
                epoch=tenant.epoch,
                time=self._clock.now(),
                key=tenant.tenant_id.hex,
                data=message.SerializeToString(),
            )
        )


def catalog_entry(tenant: Tenant) -> tenant_registry_pb2.CatalogEntry:
    """What every service keeps of a tenant. No secret, no personal data."""
    return tenant_registry_pb2.CatalogEntry(
        tenant_id=str(tenant.tenant_id),
        slug=tenant.slug,
        display_name=tenant.display_name,
        country=tenant.country,
        parent_id=str(tenant.parent_id or ""),
        ancestor_ids=[str(ancestor) for ancestor in tenant.ancestor_ids],
        sector_profile=tenant_pb2.SectorProfile.Value(f"SECTOR_PROFILE_{tenant.sector_profile}"),
        isolation_mode=tenant_pb2.IsolationMode.Value(f"ISOLATION_MODE_{tenant.isolation_mode}"),
        state=tenant_pb2.TenantState.Value(f"TENANT_STATE_{tenant.state}"),
        epoch=tenant.epoch,
        placement=tenant_pb2.Placement(
            cluster=tenant.cluster_id, database=tenant.database, schema=tenant.schema
        ),
        modules=sorted(tenant.active_modules),
        entitlements=dict(tenant.entitlements),
        provider_access=tenant_pb2.ProviderAccess.Value(f"PROVIDER_ACCESS_{tenant.provider_access}"),
        time_zone=tenant.time_zone,
        version=tenant.version,
        locale=tenant.locale,
        currency_code=tenant.currency_code,
    )
