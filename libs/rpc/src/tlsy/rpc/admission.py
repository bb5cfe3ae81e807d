"""Who may call what: decided before a handler runs, in one fixed order.

Authentication, tenant binding, module, permission, rate, validation, idempotency. Every decision is local:
keys, catalogue, deny-list and role table are in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import UUID

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
from tlsy.rpc.tokens import TokenRevoked
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.tenancy.context import TenantState
from tlsy.tenancy.errors import UnknownTenant

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from tlsy.rpc.denials import DenialSink
    from tlsy.rpc.limits import RequestRates
    from tlsy.rpc.methods import Method
    from tlsy.rpc.observer import Observed
    from tlsy.rpc.tokens import TokenClaims, TokenVerifier, VerifiedToken
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.ids import TenantId
    from tlsy.tenancy.catalog import Catalog, TenantEntry

_BEARER: Final = "bearer "
#: Suspended tenants are let in: what they have stays readable, and the database refuses their writes.
_ADMITTED_STATES: Final = frozenset({TenantState.ACTIVE, TenantState.SUSPENDED})
_NO_EPOCH: Final = -1
_NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Admission:
    """Lets calls in. Holds nothing of its own; everything it asks is in memory."""

    verifier: TokenVerifier
    catalog: Catalog
    denials: DenialSink
    rates: RequestRates
    clock: Clock

    async def admit(
        self, method: Method, request: Message, seen: Observed, *, deadline: float, peer: str
    ) -> Call:
        """The call, established.

        Raises:
            Unauthenticated: no token, or not a good one.
            PermissionDenied: CROSS_TENANT, PLATFORM_ONLY, TENANT_UNKNOWN, MODULE_DISABLED,
                PERMISSION_MISSING.
            FailedPrecondition: TENANT_NOT_ACTIVE.
            ResourceExhausted: RATE_LIMITED.
            InvalidArgument: the request breaks its rules, or its request_id is no UUID.
            Unavailable: keys or catalogue have not been read yet.
        """
        claims: TokenClaims | None = None
        tenant: TenantEntry | None = None
        permissions = _NOBODY
        if method.scope != options_pb2.SCOPE_PUBLIC:
            verified = await self._authenticate(method, request, seen.authorization)
            claims = verified.claims
            tenant = await self._bind(method, request, claims)
            permissions = verified.grants.permissions(method.module)
            self._authorize(method, request, verified, tenant)
            if tenant is not None and not claims.of_service:
                self.rates.take(tenant)
        method.checks.check(request)
        request_id = _request_id(request) if method.takes_request_id else None
        return Call(
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

    async def _authenticate(self, method: Method, request: Message, header: str) -> VerifiedToken:
        if not header:
            raise Unauthenticated("TOKEN_MISSING", 'Send the metadata "authorization: Bearer <token>".')
        if header[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated("TOKEN_MALFORMED", "Only bearer tokens are taken.")
        try:
            return await self.verifier.verify(header[len(_BEARER) :])
        except TokenRevoked as error:
            self._deny(method, request, error.claims, error)

    async def _bind(self, method: Method, request: Message, claims: TokenClaims) -> TenantEntry | None:
        """The token's tenant, and nobody else's names in the request."""
        if claims.tenant_id == PLATFORM_TENANT_ID and method.scope != options_pb2.SCOPE_TENANT:
            try:
                return self.catalog.tenant(claims.tenant_id)
            except (UnknownTenant, ServiceError):
                # The control plane answers before there is a catalogue: it is what fills it.
                return None
        if method.scope == options_pb2.SCOPE_PLATFORM:
            refusal = PermissionDenied("PLATFORM_ONLY", "Only the platform's own administrators may do this.")
            self._deny(method, request, claims, refusal)
        tenant = await self._tenant(method, request, claims)
        if tenant.state not in _ADMITTED_STATES:
            raise FailedPrecondition(
                "TENANT_NOT_ACTIVE",
                f"The tenant is {tenant.state.lower()}.",
                metadata={"state": str(tenant.state)},
            )
        foreign = method.names.first_foreign(request, f"{NAME_PREFIX}{tenant.slug}")
        if foreign is not None:
            refusal = PermissionDenied(
                "CROSS_TENANT", "A name in the request is of another tenant than the token."
            )
            self._deny(method, request, claims, refusal)
        return tenant

    async def _tenant(self, method: Method, request: Message, claims: TokenClaims) -> TenantEntry:
        try:
            return self.catalog.tenant(claims.tenant_id)
        except UnknownTenant:
            pass
        try:
            return await self.catalog.refresh(claims.tenant_id, _NO_EPOCH)
        except UnknownTenant:
            refusal = PermissionDenied("TENANT_UNKNOWN", "The token's tenant does not exist any more.")
            self._deny(method, request, claims, refusal)

    def _authorize(
        self, method: Method, request: Message, verified: VerifiedToken, tenant: TenantEntry | None
    ) -> None:
        if method.module and (tenant is None or method.module not in tenant.modules):
            refusal = PermissionDenied(
                "MODULE_DISABLED",
                f'The module "{method.module}" is off for this tenant.',
                metadata={"module": method.module},
            )
            self._deny(method, request, verified.claims, refusal)
        if method.permission not in verified.grants.permissions(method.module):
            refusal = PermissionDenied(
                "PERMISSION_MISSING",
                f'None of your roles permits "{method.permission}".',
                metadata={"permission": method.permission},
            )
            self._deny(method, request, verified.claims, refusal)

    def _deny(self, method: Method, request: Message, claims: TokenClaims, refusal: ServiceError) -> NoReturn:
        """Tell the audit log, then refuse."""
        home: TenantId = claims.actor.tenant_id if claims.actor is not None else claims.tenant_id
        self.denials.denied(
            DeniedCalls(
                tenant_id=claims.tenant_id,
                home_tenant_id=home,
                principal=claims.principal,
                method=method.name,
                reason=refusal.reason,
                resource=method.names.first(request),
                first_time=self.clock.now(),
                count=1,
            )
        )
        raise refusal


def _request_id(request: Message) -> UUID | None:
    given: str = request.request_id  # type: ignore[attr-defined]  # takes_request_id says that it is there
    if not given:
        return None
    try:
        return UUID(given)
    except ValueError:
        text = "must be a UUID, or empty"
        raise InvalidArgument(violations=[Violation("request_id", "REQUEST_ID_INVALID", text)]) from None
