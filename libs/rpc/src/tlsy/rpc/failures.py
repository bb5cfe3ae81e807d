"""What a handler may fail with, turned into what a caller may know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

from tlsy.rpc.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Retryable,
    ServiceError,
    Unavailable,
    Violation,
)
from tlsy.tenancy import errors as tenancy

if TYPE_CHECKING:
    from collections.abc import Callable

_STALE_RETRY_S: Final = 0.2
_AWAY_RETRY_S: Final = 1.0


def as_service_error(error: Exception) -> ServiceError:
    """The error to answer with.

    Errors of tenancy keep their reason. An error of another service is passed on only where waiting may help;
    any other is a defect of ours, since a handler that expects a peer's refusal catches it. Everything
    unknown is INTERNAL without a word of what happened.
    """
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, tenancy.TenancyError):
        for kind, told in _TENANCY:
            if isinstance(error, kind):
                return told(error)
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("DEADLINE_EXCEEDED", "It took longer than the call's deadline.")
    if isinstance(error, grpc.RpcError):
        peer = ServiceError.from_rpc_error(error)
        if isinstance(peer, Retryable):
            delay_s = peer.retry_after_s if peer.retry_after_s is not None else _AWAY_RETRY_S
            text = "A service that this one needs is away; send again."
            return Unavailable("PEER_UNAVAILABLE", text, retry_after_s=delay_s)
    return Internal(
        "INTERNAL", "Something went wrong on our side; it was logged under this call's request id."
    )


def _not_writable(error: tenancy.TenancyError) -> ServiceError:
    return FailedPrecondition(error.reason, "The tenant takes no changes now: suspended, deleted, or moving.")


def _stale_epoch(error: tenancy.TenancyError) -> ServiceError:
    return Unavailable(
        error.reason, "The tenant is just being moved; send again.", retry_after_s=_STALE_RETRY_S
    )


def _placement_away(error: tenancy.TenancyError) -> ServiceError:
    lost = isinstance(error, tenancy.PlacementUnavailable) and error.outcome_unknown
    return Unavailable(
        "OUTCOME_UNKNOWN" if lost else error.reason,
        "The tenant's database was lost during the commit; send again with the same request_id."
        if lost
        else "The tenant's database cannot be reached; send again.",
        retry_after_s=_AWAY_RETRY_S,
    )


def _database_busy(error: tenancy.TenancyError) -> ServiceError:
    return Unavailable(
        error.reason, "The tenant's database is busy; send again.", retry_after_s=_AWAY_RETRY_S
    )


def _lease_lost(error: tenancy.TenancyError) -> ServiceError:
    return Unavailable(error.reason, "Another replica took over; send again.", retry_after_s=_STALE_RETRY_S)


def _catalog_away(error: tenancy.TenancyError) -> ServiceError:
    text = "The tenant is not known here yet, and the registry is away; send again."
    return Unavailable(error.reason, text, retry_after_s=_AWAY_RETRY_S)


def _not_understood(error: tenancy.TenancyError) -> ServiceError:
    text = "The tenant's entry in the catalogue is newer than this replica can read; send again."
    return Unavailable(error.reason, text, retry_after_s=_AWAY_RETRY_S)


def _unknown_tenant(error: tenancy.TenancyError) -> ServiceError:
    return NotFound(error.reason, "There is no such tenant.")


def _request_id_reused(error: tenancy.TenancyError) -> ServiceError:
    text = "was sent before with another body; take a new one"
    return InvalidArgument(error.reason, violations=[Violation("request_id", error.reason, text)])


_TENANCY: Final[
    tuple[tuple[type[tenancy.TenancyError], Callable[[tenancy.TenancyError], ServiceError]], ...]
] = (
    (tenancy.NotWritable, _not_writable),
    (tenancy.StaleEpoch, _stale_epoch),
    (tenancy.PlacementUnavailable, _placement_away),
    (tenancy.DatabaseBusy, _database_busy),
    (tenancy.LeaseLost, _lease_lost),
    (tenancy.CatalogUnavailable, _catalog_away),
    (tenancy.TenantNotUnderstood, _not_understood),
    (tenancy.UnknownTenant, _unknown_tenant),
    (tenancy.RequestIdReused, _request_id_reused),
)
