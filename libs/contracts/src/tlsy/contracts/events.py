"""The events that services tell each other: CloudEvents type to message, and the topic each service owns.

One topic per producing service, never one per tenant; key = tenant or aggregate under it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tlsy.contracts.audit_log.events.v1 import events_pb2 as audit_log
from tlsy.contracts.billing.events.v1 import events_pb2 as billing
from tlsy.contracts.identity.events.v1 import events_pb2 as identity
from tlsy.contracts.ingestion.events.v1 import events_pb2 as ingestion
from tlsy.contracts.rules_engine.events.v1 import events_pb2 as rules_engine
from tlsy.contracts.tenant_registry.events.v1 import events_pb2 as tenant_registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message

#: Services that publish; the topic of each is `tlsy.<service>`.
SERVICES: Final = ("tenant-registry", "identity", "ingestion", "rules-engine")

#: Service name to the one topic that it publishes to.
TOPICS: Final[Mapping[str, str]] = MappingProxyType({service: f"tlsy.{service}" for service in SERVICES})

#: Where tenants' producers put their records (message ProducedEvents).
INGEST_TOPIC: Final = "tlsy.ingest"

TENANT_CHANGED: Final = "tlsy.tenant-registry.tenant.changed.v1"
PRINCIPAL_REVOKED: Final = "tlsy.identity.principal.revoked.v1"
SIGNING_KEY_ROTATED: Final = "tlsy.identity.signing-key.rotated.v1"
EVENTS_ACCEPTED: Final = "tlsy.ingestion.events.accepted.v1"
RULE_CHANGED: Final = "tlsy.rules-engine.rule.changed.v1"
INCIDENT_CHANGED: Final = "tlsy.rules-engine.incident.changed.v1"


def audit_recorded(service: str) -> str:
    """The type of the audit records that `service` writes."""
    return f"tlsy.{service}.audit.recorded.v1"


def usage_recorded(service: str) -> str:
    """The type of the usage facts that `service` writes."""
    return f"tlsy.{service}.usage.recorded.v1"


#: CloudEvents type to the message that its data holds.
EVENTS: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {
        TENANT_CHANGED: tenant_registry.TenantChanged,
        PRINCIPAL_REVOKED: identity.PrincipalRevoked,
        SIGNING_KEY_ROTATED: identity.SigningKeyRotated,
        EVENTS_ACCEPTED: ingestion.EventsAccepted,
        RULE_CHANGED: rules_engine.RuleChanged,
        INCIDENT_CHANGED: rules_engine.IncidentChanged,
        **{audit_recorded(service): audit_log.AuditRecorded for service in SERVICES},
        **{usage_recorded(service): billing.UsageRecorded for service in SERVICES},
    }
)
