"""Whether an administrator of one tenant may act in another one, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tlsy.identity.domain.bindings import CLIENT_ADMIN, ONBOARDING

if TYPE_CHECKING:
    from uuid import UUID


class ProviderAccess(StrEnum):
    """What a tenant lets the provider's administrators do."""

    NONE = "NONE"
    ONBOARDING = "ONBOARDING"
    FULL = "FULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeRequest:
    """The facts that decide.

    Attributes:
        origin: the caller's tenant.
        already_exchanged: the caller's token is itself an exchanged one.
        target_ancestors: from the target's parent upwards, the platform tenant not among them.
        onboarded: a client-admin of the target has logged in, ever.
    """

    origin: UUID
    platform: UUID
    already_exchanged: bool
    target: UUID
    target_ancestors: tuple[UUID, ...]
    target_active: bool
    provider_access: ProviderAccess
    onboarded: bool


@dataclass(frozen=True, slots=True)
class Granted:
    """The caller may act in the target with this role, in every module."""

    role: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Why not: a stable reason."""

    reason: str


def decide(request: ExchangeRequest) -> Granted | Refused:
    """The platform tenant is above every other; a head office is above its subsidiaries.

    `provider_access` is the platform's business alone. A token that was exchanged is not exchanged again: who
    acts must be read from one `act` claim.
    """
    reason = outside_hierarchy(request)
    if reason is not None:
        return Refused(reason)
    if request.origin != request.platform or request.provider_access is ProviderAccess.FULL:
        return Granted(CLIENT_ADMIN)
    if request.provider_access is ProviderAccess.NONE:
        return Refused("PROVIDER_ACCESS_DENIED")
    return Refused("ONBOARDING_CLOSED") if request.onboarded else Granted(ONBOARDING)


def outside_hierarchy(request: ExchangeRequest) -> str | None:
    """Why the caller has no business with the target at all; None: the target's own policy decides."""
    if request.already_exchanged:
        return "ALREADY_EXCHANGED"
    if request.origin == request.target:
        return "TARGET_IS_ORIGIN"
    if request.origin != request.platform and request.origin not in request.target_ancestors:
        return "NOT_AN_ANCESTOR"
    if not request.target_active:
        return "TENANT_NOT_ACTIVE"
    return None
