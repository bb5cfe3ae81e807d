"""A server's refusal as what happened and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.cli.domain.errors import CommandError, NotLoggedInError, RefusedError, UnreachableError
from tlsy.rpc import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

_NEXT: Final[Mapping[type[errors.ServiceError], str]] = {
    errors.InvalidArgument: "Correct what is named and try again.",
    errors.OutOfRange: "Correct what is named and try again.",
    errors.NotFound: "See what there is with the group's list command, and check --tenant.",
    errors.AlreadyExists: "Choose another name, or change the one that is there.",
    errors.FailedPrecondition: "Look at its present state with get, and bring it there first.",
    errors.Aborted: "Somebody else was faster: look at it again and repeat.",
    errors.PermissionDenied: "Ask an administrator for a role that permits it; see: tlsy roles list",
    errors.Unimplemented: "The server is older than this command line; see: tlsy doctor",
    errors.Internal: "It is a defect of the server; its log has the cause.",
}
_NEXT_OF_REASON: Final[Mapping[str, str]] = {
    "CROSS_TENANT": "Choose the tenant with --tenant.",
    "ETAG_MISMATCH": "Somebody else was faster: look at it again and repeat.",
    "MODULE_REQUIRED": "Switch off what is named first: tlsy modules disable MODULE",
    "MODULE_REQUIRES": "Switch on what is named first: tlsy modules enable MODULE",
    "MODULE_EXCEEDS_PARENT": "Switch it on for the parent first: tlsy modules enable MODULE --tenant PARENT",
    "NOT_AN_ANCESTOR": "Choose a tenant below yours with --tenant; see: tlsy tenants list, tlsy whoami",
    "NO_PREVIOUS_VERSION": "Choose one with --to; see: tlsy rules versions",
    "TENANT_NOT_ACTIVE": "See its state with: tlsy tenants get",
}


def failure_of(error: errors.ServiceError) -> CommandError:
    """The same as a command's end."""
    what = f"{error.message} ({error.reason})"
    details = [f"{v.field or '(request)'}: {v.reason}: {v.description}" for v in error.violations]
    match error:
        case errors.Unauthenticated():
            return NotLoggedInError(what, "Run: tlsy login; with an API key, check that it is not revoked.")
        case errors.Unavailable() | errors.DeadlineExceeded() if not error.domain:
            return UnreachableError(
                f"The server does not answer: {error.message}",
                "Check that it runs and that the context's address is right: tlsy doctor",
            )
        case errors.Retryable():
            wait = f"in {error.retry_after_s:g} s" if error.retry_after_s else "in a moment"
            kind = RefusedError if isinstance(error, errors.ResourceExhausted) else UnreachableError
            return kind(what, f"Try again {wait}.")
    if error.reason == "MODULE_DISABLED":
        module = error.metadata.get("module", "MODULE")
        return RefusedError(what, f"Switch it on: tlsy modules enable {module}")
    next_step = _NEXT_OF_REASON.get(error.reason) or _NEXT.get(type(error), "See: tlsy doctor")
    return RefusedError(what, next_step, details)
