"""What a caller may know of a tenant's resources, and a request of every RPC that is made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

EVENT_TYPE: Final = "room.temperature"
SOURCE: Final = "agent/a"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Everything of one tenant that a request can name; none of it holds a canary but `email`.

    Attributes:
        page_tokens: RPC to the token of its second page.
        etags: resource kind to etag.
        since_us: before its first event.
        password, secret: the caller's own; the names may be another's.
    """

    tenant: str
    user: str
    binding: str
    key: str
    rule: str
    versions: tuple[str, str]
    incident: str
    operation: str
    email: str
    key_ids: tuple[str, str]
    page_tokens: Mapping[str, str] = field(default_factory=dict)
    etags: Mapping[str, str] = field(default_factory=dict)
    since_us: int
    password: str
    secret: str

    def grafted(self, onto: Names) -> Names:
        """These resources under another tenant's name: that passes a check of names, and is not found."""
        moved: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str) and value.startswith(f"{self.tenant}/"):
                moved[each.name] = onto.tenant + value[len(self.tenant) :]
        moved["versions"] = tuple(onto.tenant + name[len(self.tenant) :] for name in self.versions)
        return replace(self, tenant=onto.tenant, password=onto.password, secret=onto.secret, **moved)

    def without_prefix(self) -> Names:
        """What is left of these names without their "tenants/"."""
        moved: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, str):
                moved[each.name] = value.removeprefix("tenants/")
        moved["versions"] = tuple(name.removeprefix("tenants/") for name in self.versions)
        return replace(self, **moved)

    def known_to(self, other: Names) -> Names:
        """These names with the other's own secrets."""
        return replace(self, password=other.password, secret=other.secret)


def rule_document(canary: str, above: float = 90.0) -> bytes:
    """A rule by the name that every tenant's has: a value above opens an incident per source."""
    return json.dumps(
        {
            "schema": "tlsy.rule/1",
            "name": "hot",
            "description": canary,
            "match": {"type": EVENT_TYPE, "unseen": True},
            "when": {"gt": [{"field": "value"}, above]},
            "incident": {"severity": "error", "summary": f"{canary}: {{source}} is at {{value}}"},
        }
    ).encode()


def event(number: int, time_us: int, canary: str = "", value: float = 1.0) -> ingestion.Event:
    """The same ids in every tenant; `canary` in a label and its name, in the subject and in the data."""
    return ingestion.Event(
        source=SOURCE,
        id=str(number),
        time_us=time_us,
        type=EVENT_TYPE,
        subject=canary,
        value=value,
        labels={f"l{canary}": canary} if canary else {},
        data=json.dumps({"note": canary}).encode(),
    )


def _period(names: Names) -> dict[str, Any]:
    start, end = Timestamp(), Timestamp()
    start.FromMicroseconds(names.since_us)
    end.FromMicroseconds(names.since_us + 3600 * 1_000_000)
    return {"start_time": start, "end_time": end}


def _listing(names: Names, rpc: str, **more: Any) -> dict[str, Any]:
    return {"page_size": 1, "page_token": names.page_tokens.get(rpc, ""), **more}


def _mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


_IDENTITY: Final[Mapping[str, Callable[[Names], Message]]] = {
    "LogIn": lambda n: identity.LogInRequest(tenant=n.tenant, email=n.email, password=n.password),
    "ExchangeApiKey": lambda n: identity.ExchangeApiKeyRequest(
        api_key=f"tlsy_{n.key_ids[0]}_{n.key_ids[1]}_{n.secret}"
    ),
    "ExchangeToken": lambda n: identity.ExchangeTokenRequest(target_tenant=n.tenant, reason="a check"),
    "GetJwks": lambda n: identity.GetJwksRequest(),
    "RotateSigningKey": lambda n: identity.RotateSigningKeyRequest(),
    "CreateUser": lambda n: identity.CreateUserRequest(
        parent=n.tenant,
        user=identity.User(name=n.user, email="new@check.example", etag=n.etags["user"]),
        password="another passphrase",
    ),
    "GetUser": lambda n: identity.GetUserRequest(name=n.user),
    "ListUsers": lambda n: identity.ListUsersRequest(parent=n.tenant, **_listing(n, "ListUsers")),
    "UpdateUser": lambda n: identity.UpdateUserRequest(
        user=identity.User(name=n.user, display_name="changed"), update_mask=_mask("display_name")
    ),
    "DeleteUser": lambda n: identity.DeleteUserRequest(name=n.user),
    "SetPassword": lambda n: identity.SetPasswordRequest(name=n.user, new_password="another passphrase"),
    "CreateRoleBinding": lambda n: identity.CreateRoleBindingRequest(
        parent=n.tenant, role_binding=identity.RoleBinding(principal=n.user, role="viewer")
    ),
    "ListRoleBindings": lambda n: identity.ListRoleBindingsRequest(
        parent=n.tenant, principal=n.user, **_listing(n, "ListRoleBindings")
    ),
    "DeleteRoleBinding": lambda n: identity.DeleteRoleBindingRequest(name=n.binding),
    "ListRoles": lambda n: identity.ListRolesRequest(parent=n.tenant),
    "CreateApiKey": lambda n: identity.CreateApiKeyRequest(
        parent=n.tenant, display_name="a check", role="internal-admin"
    ),
    "ListApiKeys": lambda n: identity.ListApiKeysRequest(parent=n.tenant, **_listing(n, "ListApiKeys")),
    "RevokeApiKey": lambda n: identity.RevokeApiKeyRequest(name=n.key),
    "ListRevocations": lambda n: identity.ListRevocationsRequest(),
}

_INGESTION: Final[Mapping[str, Callable[[Names], Message]]] = {
    "IngestEvents": lambda n: ingestion.IngestEventsRequest(
        parent=n.tenant, events=[event(1, n.since_us + 1)]
    ),
    "QueryEvents": lambda n: ingestion.QueryEventsRequest(
        parent=n.tenant, source=SOURCE, **_period(n), **_listing(n, "QueryEvents")
    ),
    "TailEvents": lambda n: ingestion.TailEventsRequest(parent=n.tenant),
    "ListIngestOutcomes": lambda n: ingestion.ListIngestOutcomesRequest(
        parent=n.tenant, **_listing(n, "ListIngestOutcomes")
    ),
    "GetIngestUsage": lambda n: ingestion.GetIngestUsageRequest(parent=n.tenant),
}

_RULES: Final[Mapping[str, Callable[[Names], Message]]] = {
    "ValidateRule": lambda n: rules.ValidateRuleRequest(
        parent=n.tenant, document=rule_document("").replace(b'"value"', b'"labels.l"')
    ),
    "PublishRule": lambda n: rules.PublishRuleRequest(
        name=n.rule, document=rule_document("", 70.0), etag=n.etags["rule"]
    ),
    "GetRule": lambda n: rules.GetRuleRequest(name=n.rule),
    "ListRules": lambda n: rules.ListRulesRequest(parent=n.tenant, **_listing(n, "ListRules")),
    "ListRuleVersions": lambda n: rules.ListRuleVersionsRequest(
        parent=n.rule, **_listing(n, "ListRuleVersions")
    ),
    "DiffRuleVersions": lambda n: rules.DiffRuleVersionsRequest(
        old_version=n.versions[0], new_version=n.versions[1]
    ),
    "RollbackRule": lambda n: rules.RollbackRuleRequest(
        name=n.rule, version_id=n.versions[0].rpartition("/")[2], etag=n.etags["rule"]
    ),
    "DisableRule": lambda n: rules.DisableRuleRequest(name=n.rule, etag=n.etags["rule"]),
    "GetIncident": lambda n: rules.GetIncidentRequest(name=n.incident),
    "ListIncidents": lambda n: rules.ListIncidentsRequest(
        parent=n.tenant, rule=n.rule, **_listing(n, "ListIncidents")
    ),
    "AcknowledgeIncident": lambda n: rules.AcknowledgeIncidentRequest(name=n.incident, note="mine"),
    "ResolveIncident": lambda n: rules.ResolveIncidentRequest(name=n.incident, note="mine"),
    "ListObservedFields": lambda n: rules.ListObservedFieldsRequest(parent=n.tenant),
}

_REGISTRY: Final[Mapping[str, Callable[[Names], Message]]] = {
    "CreateTenant": lambda n: registry.CreateTenantRequest(
        tenant_slug="a-check",
        tenant=tenant_pb2.Tenant(display_name="x", parent=n.tenant, country="countries/fr"),
        validate_only=True,
    ),
    "GetTenant": lambda n: registry.GetTenantRequest(name=n.tenant),
    "ListTenants": lambda n: registry.ListTenantsRequest(
        filter=registry.TenantFilter(parent=n.tenant), **_listing(n, "ListTenants")
    ),
    "UpdateTenant": lambda n: registry.UpdateTenantRequest(
        tenant=tenant_pb2.Tenant(name=n.tenant, display_name="changed", etag=n.etags["tenant"]),
        update_mask=_mask("display_name"),
    ),
    "SuspendTenant": lambda n: registry.SuspendTenantRequest(name=n.tenant, reason="a check"),
    "ResumeTenant": lambda n: registry.ResumeTenantRequest(name=n.tenant),
    "DeleteTenant": lambda n: registry.DeleteTenantRequest(name=n.tenant, skip_retention=True),
    "GetOperation": lambda n: registry.GetOperationRequest(name=n.operation),
    "WaitOperation": lambda n: registry.WaitOperationRequest(name=n.operation),
    "ResolveHost": lambda n: registry.ResolveHostRequest(host_name=f"{n.tenant[8:]}.tlsy.localhost"),
    "ListModules": lambda n: registry.ListModulesRequest(parent=n.tenant),
    "SetModule": lambda n: registry.SetModuleRequest(name=f"{n.tenant}/modules/billing", enabled=True),
    "ListEntitlements": lambda n: registry.ListEntitlementsRequest(parent=n.tenant),
    "SetEntitlement": lambda n: registry.SetEntitlementRequest(
        name=f"{n.tenant}/entitlements/events_per_month", value=1
    ),
    "CreateCountry": lambda n: registry.CreateCountryRequest(
        country=tenant_pb2.Country(name="countries/xx", display_name="x")
    ),
    "UpdateCountry": lambda n: registry.UpdateCountryRequest(
        country=tenant_pb2.Country(name="countries/fr", display_name="x"), update_mask=_mask("display_name")
    ),
    "ListCountries": lambda n: registry.ListCountriesRequest(),
    "CreateCluster": lambda n: registry.CreateClusterRequest(
        cluster=tenant_pb2.Cluster(
            name="clusters/mine", country="countries/fr", kind=tenant_pb2.CLUSTER_KIND_SHARED
        )
    ),
    "UpdateCluster": lambda n: registry.UpdateClusterRequest(
        cluster=tenant_pb2.Cluster(name="clusters/local", cordoned=True), update_mask=_mask("cordoned")
    ),
    "ListClusters": lambda n: registry.ListClustersRequest(),
    "SnapshotCatalog": lambda n: registry.SnapshotCatalogRequest(),
}

#: RPC to the request that names all it can.
REQUESTS: Final[Mapping[str, Callable[[Names], Message]]] = {
    **_IDENTITY,
    **_INGESTION,
    **_RULES,
    **_REGISTRY,
}
#: RPCs that show what a tenant owns: asked for one's own they must show its canary, or the search is blind.
SHOW: Final = frozenset(
    {
        "GetUser",
        "ListUsers",
        "ListApiKeys",
        "QueryEvents",
        "ListIngestOutcomes",
        "ListObservedFields",
        "GetRule",
        "ListRules",
        "ListRuleVersions",
        "GetIncident",
        "ListIncidents",
        "GetTenant",
    }
)
