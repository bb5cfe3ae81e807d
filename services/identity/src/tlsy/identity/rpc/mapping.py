"""Domain values to messages."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.identity.domain.ids import PrincipalKind, PrincipalRef
from tlsy.rpc.errors import InvalidArgument, Violation
from tlsy.rpc.etags import etag_of

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp

    from tlsy.identity.domain.api_keys import ApiKey
    from tlsy.identity.domain.bindings import RoleBinding
    from tlsy.identity.domain.revocations import IndexedRevocation
    from tlsy.identity.domain.users import User
    from tlsy.identity.handlers.issuing import IssuedToken
    from tlsy.identity.handlers.list_roles import Role


def to_token(issued: IssuedToken) -> pb.Token:
    """A token; whole seconds, rounded down, so that nobody uses it too long."""
    message = pb.Token(access_token=issued.text)
    message.expires_in.FromTimedelta(timedelta(seconds=int(issued.expires_in_s)))
    return message


def to_user(user: User, slug: str) -> pb.User:
    """A user, with the personal data that its readers may see."""
    message = pb.User(
        name=PrincipalRef(PrincipalKind.USER, user.id).name(slug),
        email=user.email,
        display_name=user.display_name,
        disabled=user.disabled,
        locale=user.locale,
        etag=etag_of(user.id, user.version),
    )
    _set(message.create_time, user.create_time)
    _set(message.last_log_in_time, user.last_log_in_time)
    _set(message.locked_until, user.attempts.locked_until)
    return message


def to_role_binding(binding: RoleBinding, slug: str) -> pb.RoleBinding:
    """A role binding."""
    message = pb.RoleBinding(
        name=f"tenants/{slug}/roleBindings/{binding.id}",
        principal=binding.principal.name(slug),
        role=binding.role,
        module=binding.module,
    )
    _set(message.create_time, binding.create_time)
    return message


def to_api_key(key: ApiKey, slug: str) -> pb.ApiKey:
    """A key without its secret."""
    message = pb.ApiKey(
        name=PrincipalRef(PrincipalKind.API_KEY, key.id).name(slug),
        display_name=key.display_name,
        role=key.role,
        prefix=key.prefix,
    )
    _set(message.create_time, key.create_time)
    _set(message.expire_time, key.expire_time)
    _set(message.revoke_time, key.revoke_time)
    return message


def to_role(role: Role) -> pb.Role:
    """A role of the table."""
    return pb.Role(id=role.id, description=role.description, permissions=role.permissions)


def to_revocation(revocation: IndexedRevocation) -> pb.Revocation:
    """A revocation of any tenant."""
    message = pb.Revocation(tenant_id=str(revocation.tenant_id), principal=revocation.principal)
    _set(message.revoke_time, revocation.revoke_time)
    _set(message.expire_time, revocation.expire_time)
    return message


def expiry(request: pb.CreateApiKeyRequest) -> datetime | None:
    """When a key is to expire; None: never. InvalidArgument for a time that there is not."""
    if not request.HasField("expire_time"):
        return None
    try:
        return request.expire_time.ToDatetime(UTC)
    except (ValueError, OverflowError):
        text = "must be a time between the years 1 and 9999"
        raise InvalidArgument(violations=[Violation("expire_time", "TIME_INVALID", text)]) from None


def _set(field: Timestamp, value: datetime | None) -> None:
    if value is not None:
        field.FromDatetime(value)
