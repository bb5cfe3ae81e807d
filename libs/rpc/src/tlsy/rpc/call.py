"""The call that is being answered, for whatever runs inside it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tlsy.runtime.ids import PLATFORM_TENANT_ID, TenantId

if TYPE_CHECKING:
    from uuid import UUID

    from tlsy.rpc.tokens import TokenClaims
    from tlsy.runtime.ids import PrincipalName
    from tlsy.tenancy.catalog import TenantEntry

#: Set by the interceptor for the task that runs a handler; nothing else may set it.
CURRENT_CALL: Final[ContextVar[Call]] = ContextVar("tlsy_call")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who asks for what, as the interceptor established it.

    Attributes:
        method: "tlsy.identity.v1.IdentityService/CreateUser".
        tenant: the token's tenant; None in PUBLIC calls, and in calls of the platform before its own entry
            is in the catalogue.
        claims: the verified token; None in PUBLIC calls.
        permissions: what the token permits in this method's module.
        request_id: the client's idempotency key; None if it gave none, or the method takes none.
        request_hash: SHA-256 of the request without its request_id; b"" without request_id.
        correlation_id: ties log lines of one request together across services; never empty.
        traceparent: W3C, to hand on; "" where nothing is traced.
        trace_id: 32 hex digits, or "".
        deadline: on the clock's `monotonic()`.
        peer: where the caller connected from, as gRPC writes it.
    """

    method: str
    tenant: TenantEntry | None
    claims: TokenClaims | None
    permissions: frozenset[str]
    request_id: UUID | None
    request_hash: bytes
    correlation_id: str
    traceparent: str
    trace_id: str
    deadline: float
    peer: str

    @property
    def principal(self) -> PrincipalName | None:
        """Who calls; None in PUBLIC calls."""
        return self.claims.principal if self.claims is not None else None

    @property
    def tenant_id(self) -> TenantId | None:
        """The token's tenant; None in PUBLIC calls."""
        return self.claims.tenant_id if self.claims is not None else None

    @property
    def of_platform(self) -> bool:
        """Whether the token is the platform tenant's own, not one exchanged for another tenant."""
        return self.claims is not None and self.claims.tenant_id == PLATFORM_TENANT_ID

    def required_tenant(self) -> TenantEntry:
        """The tenant of a call that cannot have come this far without one (SCOPE_TENANT)."""
        if self.tenant is None:
            raise RuntimeError(f"{self.method} was let through without a tenant")
        return self.tenant


def current_call() -> Call:
    """The call of the running task.

    Raises:
        LookupError: nothing is being answered here (a consumer, a timer).
    """
    return CURRENT_CALL.get()
