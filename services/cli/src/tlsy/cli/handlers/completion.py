"""What a word that is being typed may become: names that servers know, and those of closed sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.cli.domain.manifests import enum_names
from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2
from tlsy.rpc.permissions import MODULES, ROLES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Any

    from google.protobuf.descriptor import EnumDescriptor

    from tlsy.cli.ports import Session

    Lookup = Callable[[Session], Awaitable[list[str]]]

#: All that there is, in most installations; the servers give no more at once.
_PAGE: Final = 1000
#: The newest: nobody chooses from more.
_INCIDENTS: Final = 100
#: Only exchanged tokens and services' own carry them.
_UNBOUND: Final = frozenset({"onboarding", "service"})


def modules() -> list[str]:
    """All modules."""
    return sorted(MODULES)


def roles() -> list[str]:
    """The roles that users and keys may have."""
    return sorted(ROLES.keys() - _UNBOUND)


def one_of(kind: EnumDescriptor) -> Callable[[str], list[str]]:
    """The names of an enum, in the case in which one was begun."""

    def names(incomplete: str) -> list[str]:
        found = enum_names(kind)
        return [name.lower() for name in found] if incomplete.islower() else found

    return names


async def _tenants(session: Session) -> list[str]:
    registry = await session.registry()
    request = tenant_registry_pb2.ListTenantsRequest(page_size=_PAGE)
    return _ids((await registry.ListTenants(request)).tenants)


async def _clusters(session: Session) -> list[str]:
    registry = await session.registry()
    request = tenant_registry_pb2.ListClustersRequest(page_size=_PAGE)
    return _ids((await registry.ListClusters(request)).clusters)


async def _rules(session: Session) -> list[str]:
    rules = await session.rules()
    request = rules_engine_pb2.ListRulesRequest(parent=await session.tenant(), page_size=_PAGE)
    return _ids((await rules.ListRules(request)).rules)


async def _incidents(session: Session) -> list[str]:
    rules = await session.rules()
    request = rules_engine_pb2.ListIncidentsRequest(parent=await session.tenant(), page_size=_INCIDENTS)
    return _ids((await rules.ListIncidents(request)).incidents)


async def _users(session: Session) -> list[str]:
    identity = await session.identity()
    request = identity_pb2.ListUsersRequest(parent=await session.tenant(), page_size=_PAGE)
    return [user.email for user in (await identity.ListUsers(request)).users]


def _ids(found: Iterable[Any]) -> list[str]:
    return [each.name.rsplit("/", 1)[-1] for each in found]


#: What servers know, by what an argument is called that is one of it.
LOOKUPS: Final[Mapping[str, Lookup]] = {
    "CLUSTER": _clusters,
    "INCIDENT": _incidents,
    "RULE": _rules,
    "TENANT": _tenants,
    "USER": _users,
}
