from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from tlsy.contracts.audit_log.events.v1.events_pb2 import AuditRecorded
from tlsy.contracts.events import SERVICES, audit_recorded
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.options.v1 import options_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry
from tlsy.runtime.ids import PLATFORM_TENANT_ID

from . import leaks
from .calls import BY_NAME, RPCS
from .names import REQUESTS, Names
from .world import Onboarding, Tenant, World, until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    Answers = Mapping[str, Any]

pytestmark = pytest.mark.asyncio(loop_scope="session")
_TYPES: Final = frozenset(audit_recorded(service).encode() for service in SERVICES)
_CLUSTER: Final = "clusters/audited"


def _create_tenant(n: Names, done: Answers) -> Message:
    asked = tenant_pb2.Tenant(
        display_name="x",
        country="countries/fr",
        sector_profile=tenant_pb2.SECTOR_PROFILE_SME,
        isolation_mode=tenant_pb2.ISOLATION_MODE_SHARED,
        tier=tenant_pb2.TIER_BUSINESS,
        provider_access=tenant_pb2.PROVIDER_ACCESS_FULL,
    )
    return registry.CreateTenantRequest(tenant_slug="audited-too", tenant=asked)


def _bind(n: Names, done: Answers) -> Message:
    binding = identity.RoleBinding(principal=done["CreateUser"].name, role="client-admin")
    return identity.CreateRoleBindingRequest(parent=n.tenant, role_binding=binding)


def _create_key(n: Names, done: Answers) -> Message:
    return identity.CreateApiKeyRequest(parent=n.tenant, display_name="x", role="agent")


def _create_country(n: Names, done: Answers) -> Message:
    country = tenant_pb2.Country(name="countries/is", display_name="x")
    return registry.CreateCountryRequest(country=country)


def _update_country(n: Names, done: Answers) -> Message:
    country = tenant_pb2.Country(name="countries/is", display_name="y")
    return registry.UpdateCountryRequest(country=country, update_mask=FieldMask(paths=["display_name"]))


def _create_cluster(n: Names, done: Answers) -> Message:
    kind = tenant_pb2.CLUSTER_KIND_SHARED
    cluster = tenant_pb2.Cluster(name=_CLUSTER, country="countries/is", kind=kind, secret_ref="x")
    return registry.CreateClusterRequest(cluster=cluster)


def _update_cluster(n: Names, done: Answers) -> Message:
    cordoned = tenant_pb2.Cluster(name=_CLUSTER, cordoned=True)
    return registry.UpdateClusterRequest(cluster=cordoned, update_mask=FieldMask(paths=["cordoned"]))


#: In an order in which each one is possible; None: the request that names all it can.
CALLS: Final[Mapping[str, Callable[[Names, Answers], Message] | None]] = {
    "LogIn": None,
    "ExchangeToken": None,
    "RotateSigningKey": None,
    "CreateUser": None,
    "UpdateUser": None,
    "SetPassword": None,
    "CreateRoleBinding": _bind,
    "DeleteRoleBinding": None,
    "DeleteUser": None,
    "CreateApiKey": _create_key,
    "RevokeApiKey": None,
    "AcknowledgeIncident": None,
    "ResolveIncident": None,
    "PublishRule": None,
    "RollbackRule": None,
    "DisableRule": None,
    "CreateCountry": _create_country,
    "UpdateCountry": _update_country,
    "CreateCluster": _create_cluster,
    "UpdateCluster": _update_cluster,
    "CreateTenant": _create_tenant,
    "UpdateTenant": None,
    "SetModule": None,
    "SetEntitlement": None,
    "SuspendTenant": None,
    "ResumeTenant": None,
    "DeleteTenant": None,
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(world: World) -> Tenant:
    """Not among those of the world: at the end it is gone."""
    return await Onboarding(world).run("audited", "SHARED")


async def made(world: World, tenant: Tenant, name: str, done: Answers) -> Any:
    """What a call answers that must come about; of an operation, when it is over."""
    rpc, asked = BY_NAME[name], CALLS[name]
    request = asked(tenant.names, done) if asked else REQUESTS[name](tenant.names)
    if "etag" in request.DESCRIPTOR.fields_by_name:
        request.ClearField("etag")
    if isinstance(request, registry.UpdateTenantRequest):
        request.tenant.ClearField("etag")
    ours = rpc.scope == options_pb2.SCOPE_TENANT and name != "ExchangeToken"
    token = tenant.tokens["exchanged"] if ours else world.root
    if rpc.scope == options_pb2.SCOPE_PUBLIC:
        token = ""

    async def possible() -> Any:
        answer = await world.client.ask(rpc, request, token, tag=name)
        passing = {"NEXT_KEY_TOO_NEW", "OPERATION_UNDER_WAY", "TENANT_NOT_ACTIVE"}
        assert answer.message is not None or answer.reason in passing, (name, answer)
        return answer.message

    message = await until(possible)
    if message.DESCRIPTOR.name == "Operation":
        wait = registry.WaitOperationRequest(name=message.name)
        while not message.done:
            message = await world.client.get("WaitOperation", wait, world.root)
        assert message.HasField("response"), message
    return message


async def audited(world: World) -> Counter[tuple[str, str, str]]:
    """Tag of the call, method and whose log, of every record of something done; each record once.

    What a service does by itself because of a call names that call, and is no record of it.
    """
    records = {}
    for record in await leaks.records(world.suite.brokers):
        if dict(record.headers).get("ce_type") in _TYPES:
            told = AuditRecorded.FromString(record.value)
            records[told.record_id] = told
    return Counter(
        (told.request_id, told.method.rpartition("/")[2], told.tenant_id)
        for told in records.values()
        if told.outcome == "OK" and told.request_id in CALLS and not told.method.startswith("services/")
    )


async def test_once_and_in_the_log_of_whom_it_concerns(world: World, tenant: Tenant) -> None:
    assert CALLS.keys() == {rpc.name for rpc in RPCS if rpc.audit == options_pb2.AUDIT_FULL}
    done: dict[str, Any] = {}
    for name in CALLS:
        done[name] = await made(world, tenant, name, done)
    platform, ours = str(PLATFORM_TENANT_ID), str(tenant.tenant_id)
    found = await until_told(world)
    assert {name for name, method, _ in found if name == method} == CALLS.keys()
    assert {key: count for key, count in found.items() if count != 1 or key[0] != key[1]} == {}
    logs = {name: {log for of, _, log in found if of == name} for name in CALLS}
    assert logs.pop("ExchangeToken") == {platform, ours}
    assert all(len(each) == 1 for each in logs.values()), logs
    assert all(logs[name] == {ours} for name in CALLS if BY_NAME[name].service == "rules-engine")


async def until_told(world: World) -> Counter[tuple[str, str, str]]:
    """The records, once every call has one."""
    found: Counter[tuple[str, str, str]] = Counter()

    async def all_of_them() -> bool:
        nonlocal found
        found = await audited(world)
        return {name for name, *_ in found} == CALLS.keys()

    try:
        await until(all_of_them)
    except TimeoutError:
        pytest.fail(f"no record of {sorted(CALLS.keys() - {name for name, *_ in found})}")
    return found
