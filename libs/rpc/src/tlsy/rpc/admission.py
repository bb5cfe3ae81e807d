"""Who may call what: decided before a handler runs, in one fixed order.

Size, authentication, parsing, tenant binding, module, permission, rate, validation, idempotency. Bytes within
the bounds may take the parser half a second: except in PUBLIC methods, it reads those of known callers only.
Every decision is local: keys, catalogue, deny-list and role table are in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from google.protobuf.message import DecodeError

from tlsy.contracts.options.v1 import options_pb2
from tlsy.rpc.call import Call
from tlsy.rpc.denials import DeniedCalls
from tlsy.rpc.errors import (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    ServiceError,
    Unauthenticated,
    Violation,
)
from tlsy.rpc.methods import NAME_PREFIX, request_hash
from tlsy.rpc.permissions import RoleBinding
from tlsy.rpc.tokens import TokenRevoked
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.tenancy.catalog import known
from tlsy.tenancy.context import TenantState
from tlsy.tenancy.errors import TenantNotUnderstood, UnknownTenant

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.message import Message

    from tlsy.rpc.denials import DenialSink
    from tlsy.rpc.limits import RequestRates
    from tlsy.rpc.methods import Method
    from tlsy.rpc.observer import Observed
    from tlsy.rpc.tokens import TokenClaims, TokenVerifier, VerifiedToken
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.catalog import Catalog, TenantEntry

    Parse = Callable[[bytes], Message]

_BEARER: Final = "bearer "
#: Suspended tenants are let in: what they have stays readable, and the database refuses their writes.
_ADMITTED_STATES: Final = frozenset({TenantState.ACTIVE, TenantState.SUSPENDED})
#: All that the provider may be where it is let in for the beginning only.
_ONBOARDING: Final = (RoleBinding("onboarding"),)
_NOBODY: Final[frozenset[str]] = frozenset()
#: What a record of a refused call keeps of the name in its request, which nobody has validated yet.
_MAX_RESOURCE: Final = 256


@dataclass(frozen=True, slots=True)
class Admission:
    """Lets calls in. Holds nothing of its own; everything it asks is in memory."""

    verifier: TokenVerifier
    catalog: Catalog
    denials: DenialSink
    rates: RequestRates
    clock: Clock

    async def admit(
        self, method: Method, parse: Parse, raw: bytes, seen: Observed, *, deadline: float, peer: str
    ) -> tuple[Message, Call]:
        """The request, read, and its call, established.

        Raises:
            Unauthenticated: no token, or not a good one.
            PermissionDenied: CROSS_TENANT, PLATFORM_ONLY, TENANT_UNKNOWN, PROVIDER_ACCESS_DENIED,
                MODULE_DISABLED, PERMISSION_MISSING.
            FailedPrecondition: TENANT_NOT_ACTIVE.
            ResourceExhausted: RATE_LIMITED.
            InvalidArgument: REQUEST_TOO_LARGE, REQUEST_UNREADABLE; the request breaks its rules, or its
                request_id is no UUID.
            Unavailable: keys or catalogue have not been read yet.
        """
        method.checks.check_size(raw)
        public = method.scope == options_pb2.SCOPE_PUBLIC
        verified = None if public else await self._authenticate(method, seen)
        seen.claims = None if verified is None else verified.claims
        request = _parsed(parse, raw)
        claims: TokenClaims | None = None
        tenant: TenantEntry | None = None
        permissions = _NOBODY
        if verified is not None:
            claims = verified.claims
            try:
                tenant = await self._bind(method, request, claims)
                permissions = verified.grants.permissions(method.module)
                _authorize(method, permissions, tenant)
            except PermissionDenied as refusal:
                self.tell(method, method.names.first(request), claims, refusal)
                raise
            if tenant is not None and not claims.of_service:
                self.rates.take(tenant)
        method.checks.check(request)
        request_id = _request_id(request) if method.takes_request_id else None
        call = Call(
            method=method.name,
            tenant=tenant,
            claims=claims,
            permissions=permissions,
            request_id=request_id,
            request_hash=request_hash(request) if request_id is not None else b"",
            correlation_id=seen.correlation_id,
            traceparent=seen.traceparent,
            trace_id=seen.trace_id,
            deadline=deadline,
            peer=peer,
        )
        return request, call

    def stands(self, method: Method, call: Call) -> None:
        """Ask again what may have changed since `call` was admitted, for those that last; waits for nothing.

        Raises:
            Unauthenticated: TOKEN_EXPIRED, or as TokenRevoked TOKEN_REVOKED.
            PermissionDenied: TENANT_UNKNOWN, PROVIDER_ACCESS_DENIED, MODULE_DISABLED.
            FailedPrecondition: TENANT_NOT_ACTIVE.
        """
        if call.claims is None:
            return
        self.verifier.check_now(call.claims)
        if call.tenant is None or _of_control_plane(method, call.claims):
            return
        try:
            tenant = self.catalog.tenant(call.claims.tenant_id)
        except UnknownTenant:
            raise _tenant_unknown() from None
        _require_admitted(tenant)
        _require_access(tenant, call.claims)
        _authorize(method, call.permissions, tenant)

    def tell(self, method: Method, resource: str, claims: TokenClaims, refusal: ServiceError) -> None:
        """Tell the audit log of a call that was refused."""
        home: TenantId = claims.actor.tenant_id if claims.actor is not None else claims.tenant_id
        self.denials.denied(
            DeniedCalls(
                tenant_id=claims.tenant_id,
                home_tenant_id=home,
                principal=claims.principal,
                method=method.name,
                reason=refusal.reason,
                resource=resource[:_MAX_RESOURCE],
                first_time=self.clock.now(),
                count=1,
            )
        )

    async def _authenticate(self, method: Method, seen: Observed) -> VerifiedToken:
        header = seen.authorization
        if not header:
            raise Unauthenticated("TOKEN_MISSING", 'Send the metadata "authorization: Bearer <token>".')
        if header[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated("TOKEN_MALFORMED", "Only bearer tokens are taken.")
        try:
            return await self.verifier.verify(header[len(_BEARER) :])
        except TokenRevoked as refusal:
            seen.claims = refusal.claims
            # What it was for is in a request that is not read for its bearer any more.
            self.tell(method, "", refusal.claims, refusal)
            raise

    async def _bind(self, method: Method, request: Message, claims: TokenClaims) -> TenantEntry | None:
        """The token's tenant, and nobody else's names in the request."""
        if _of_control_plane(method, claims):
            try:
                return self.catalog.tenant(claims.tenant_id)
            except (UnknownTenant, TenantNotUnderstood, ServiceError):
                # The control plane answers before there is a catalogue: it is what fills it.
                return None
        if method.scope == options_pb2.SCOPE_PLATFORM:
            raise PermissionDenied("PLATFORM_ONLY", "Only the platform's own administrators may do this.")
        tenant = await self._tenant(claims)
        _require_admitted(tenant)
        _require_access(tenant, claims)
        foreign = method.names.first_foreign(request, f"{NAME_PREFIX}{tenant.slug}")
        if foreign is not None:
            text = "A name in the request is of another tenant than the token."
            raise PermissionDenied("CROSS_TENANT", text)
        return tenant

    async def _tenant(self, claims: TokenClaims) -> TenantEntry:
        try:
            return await known(self.catalog, claims.tenant_id)
        except UnknownTenant:
            raise _tenant_unknown() from None


def _parsed(parse: Parse, raw: bytes) -> Message:
    try:
        return parse(raw)
    except DecodeError:
        text = "The request cannot be read as the message that this method takes."
        raise InvalidArgument("REQUEST_UNREADABLE", text) from None


def _of_control_plane(method: Method, claims: TokenClaims) -> bool:
    """Whether the platform asks for itself, which is answered whatever state its own tenant is in."""
    return claims.tenant_id == PLATFORM_TENANT_ID and method.scope != options_pb2.SCOPE_TENANT


def _require_admitted(tenant: TenantEntry) -> None:
    if tenant.state not in _ADMITTED_STATES:
        raise FailedPrecondition(
            "TENANT_NOT_ACTIVE",
            f"The tenant is {tenant.state.lower()}.",
            metadata={"state": str(tenant.state)},
        )


def _require_access(tenant: TenantEntry, claims: TokenClaims) -> None:
    """The provider's exchanged tokens hold for as long as the tenant lets it in, which may be narrowed."""
    if claims.actor is None or claims.actor.tenant_id != PLATFORM_TENANT_ID:
        return
    onboards = tenant.provider_access == "ONBOARDING" and claims.roles == _ONBOARDING
    if tenant.provider_access != "FULL" and not onboards:
        raise PermissionDenied("PROVIDER_ACCESS_DENIED", "The tenant does not let its provider do this.")


def _authorize(method: Method, permissions: frozenset[str], tenant: TenantEntry | None) -> None:
    if method.module and (tenant is None or method.module not in tenant.modules):
        raise PermissionDenied(
            "MODULE_DISABLED",
            f'The module "{method.module}" is off for this tenant.',
            metadata={"module": method.module},
        )
    if method.permission not in permissions:
        raise PermissionDenied(
            "PERMISSION_MISSING",
            f'None of your roles permits "{method.permission}".',
            metadata={"permission": method.permission},
        )


def _tenant_unknown() -> PermissionDenied:
    return PermissionDenied("TENANT_UNKNOWN", "The token's tenant does not exist any more.")


def _request_id(request: Message) -> UUID | None:
    given: str = request.request_id  # type: ignore[attr-defined]  # takes_request_id says that it is there
    if not given:
        return None
    try:
        return UUID(given)
    except ValueError:
        text = "must be a UUID, or empty"
        raise InvalidArgument(violations=[Violation("request_id", "REQUEST_ID_INVALID", text)]) from None
