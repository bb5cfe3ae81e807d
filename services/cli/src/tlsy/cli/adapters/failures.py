"""A server's refusal as what happened and what to do next."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tlsy.cli.domain.errors import CommandError, NotLoggedInError, RefusedError, UnreachableError
from tlsy.rpc import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlsy.cli.domain.contexts import Context

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
#: What gRPC's text says of a server that does not answer, as what a person can look into.
_SILENCES: Final = (
    (re.compile(r"Connection refused|No such file or directory"), "nothing listens at {address}"),
    (re.compile(r"errors resolving|lookup"), "the name in {address} is not known"),
    (
        re.compile(r"[Hh]andshake"),
        "TLS with {address} fails: it speaks none, or its certificate is not trusted",
    ),
    (re.compile(r"HTTP/2|http1"), "what listens at {address} is no gRPC server, or it wants TLS"),
    (re.compile(r"Deadline"), "{address} did not answer in time"),
)
_ADDRESS: Final = re.compile(r"(unix:[^\s:]+|(?<=ipv4:)[\d.]+:\d+|(?<=ipv6:)\S+:\d+|(?<=resolving )\S+:\d+)")


def silence_of(text: str, context: Context, service: str = "") -> UnreachableError:
    """Why a server did not answer, by gRPC's text of it, and how to have it answer."""
    found = _ADDRESS.search(text)
    address = context.address(service) if service else found[1] if found else context.name
    told = (meaning.format(address=address) for pattern, meaning in _SILENCES if pattern.search(text))
    elsewhere = "Start it where it runs, or correct the context: tlsy context show"
    return UnreachableError(
        next(told, f"{address} does not answer"), f"Start it: {context.start}" if context.start else elsewhere
    )


def failure_of(error: errors.ServiceError, context: Context) -> CommandError:
    """The same as a command's end."""
    what = f"{error.message} ({error.reason})"
    details = [f"{v.field or '(request)'}: {v.reason}: {v.description}" for v in error.violations]
    match error:
        case errors.Unauthenticated():
            return NotLoggedInError(what, "Run: tlsy login; with an API key, check that it is not revoked.")
        case errors.Unavailable() | errors.DeadlineExceeded() if not error.domain:
            silence = silence_of(error.message, context)
            return UnreachableError(f"The server does not answer: {silence.what}.", silence.next_step)
        case errors.Retryable():
            wait = f"in {error.retry_after_s:g} s" if error.retry_after_s else "in a moment"
            kind = RefusedError if isinstance(error, errors.ResourceExhausted) else UnreachableError
            return kind(what, f"Try again {wait}.")
    if error.reason == "MODULE_DISABLED":
        module = error.metadata.get("module", "MODULE")
        return RefusedError(what, f"Switch it on: tlsy modules enable {module}")
    next_step = _NEXT_OF_REASON.get(error.reason) or _NEXT.get(type(error), "See: tlsy doctor")
    return RefusedError(what, next_step, details)
