"""Resource names of identity to ids and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from tlsy.identity.domain.ids import BindingId, KeyId, PrincipalKind, PrincipalRef, UserId
from tlsy.rpc.errors import InvalidArgument, Violation
from tlsy.rpc.resource_names import TENANT, NamePattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.rpc.paging import Cursor

USER: Final = NamePattern("tenants/{tenant}/users/{id}")
API_KEY: Final = NamePattern("tenants/{tenant}/apiKeys/{id}")
ROLE_BINDING: Final = NamePattern("tenants/{tenant}/roleBindings/{id}")


class _Listed(Protocol):
    @property
    def id(self) -> UUID: ...


#: Before every id there can be, and nobody's.
FIRST: Final = UUID(int=0)
FIRST_PAIR: Final = (FIRST, "")
NOBODY: Final = PrincipalRef(PrincipalKind.USER, FIRST)


def user_id(name: str, field: str = "name") -> UserId:
    """Of "tenants/{tenant}/users/{uuid}"; else InvalidArgument naming `field`."""
    return UserId(_uuid(USER, name, field))


def key_id(name: str, field: str = "name") -> KeyId:
    """Of "tenants/{tenant}/apiKeys/{uuid}"; else InvalidArgument naming `field`."""
    return KeyId(_uuid(API_KEY, name, field))


def binding_id(name: str, field: str = "name") -> BindingId:
    """Of "tenants/{tenant}/roleBindings/{uuid}"; else InvalidArgument naming `field`."""
    return BindingId(_uuid(ROLE_BINDING, name, field))


def principal(name: str, field: str) -> PrincipalRef:
    """A user or an API key; else InvalidArgument naming `field`."""
    if USER.match(name) is not None:
        return PrincipalRef(PrincipalKind.USER, user_id(name, field))
    if API_KEY.match(name) is not None:
        return PrincipalRef(PrincipalKind.API_KEY, key_id(name, field))
    raise _malformed(field, f"{USER.pattern} or {API_KEY.pattern}")


def principal_or_none(name: str, field: str) -> PrincipalRef | None:
    """As `principal`; "" is nobody in particular."""
    return principal(name, field) if name else None


def slug(name: str, field: str) -> str:
    """Of "tenants/{tenant}"; else InvalidArgument naming `field`."""
    return TENANT.parse(name, field=field)["tenant"]


def cursor_of(listed: Sequence[_Listed], *, more: bool) -> Cursor | None:
    """Where the listing by id goes on behind this page; None: nothing follows."""
    return (str(listed[-1].id),) if more else None


def after_pair(tenant_id: str, principal: str) -> tuple[UUID, str]:
    """Where a listing by tenant and principal goes on."""
    return UUID(tenant_id), principal


def _uuid(pattern: NamePattern, name: str, field: str) -> UUID:
    """Only the canonical spelling: one thing has one name."""
    text = pattern.parse(name, field=field)["id"]
    try:
        parsed = UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or str(parsed) != text:
        raise _malformed(field, f"{pattern.pattern}, {{id}} a UUID")
    return parsed


def _malformed(field: str, expected: str) -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field, "RESOURCE_NAME_INVALID", f"must be {expected}")])
