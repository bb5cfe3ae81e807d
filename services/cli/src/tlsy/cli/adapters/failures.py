"""A server's refusal as what happened and what to do next."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tlsy.cli.domain.errors import CommandError, NotLoggedInError, RefusedError, UnreachableError
from tlsy.cli.domain.names import slug
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
    errors.TooLarge: "Send less at once, or ask for less with --limit.",
}
_STATE_OF_TENANT: Final = "See its state with: tlsy tenants get"
_NO_ROOM: Final = "Make room with tlsy clusters update, or add one with tlsy clusters create; then try again."
#: Where the kind of error alone does not tell what to do.
_NEXT_OF_REASON: Final[Mapping[str, str]] = {
    "API_KEY_LIMIT": "Revoke one (tlsy keys revoke), or ask the platform for a higher entitlement api_keys.",
    "CLUSTER_CORDONED": _NO_ROOM,
    "CLUSTER_FULL": _NO_ROOM,
    "COUNTRY_INVALID": "Write a code of ISO 3166-1, like fr; the platform lists its own: tlsy countries list",
    "COUNTRY_UNKNOWN": "The platform lists its own (tlsy countries list), or adds it: tlsy countries create",
    "CROSS_TENANT": "Choose the tenant with --tenant.",
    "ETAG_MISMATCH": "Somebody else was faster: look at it again and repeat.",
    "HAS_SUB_TENANTS": "Delete what is below it first; see: tlsy tenants list, tlsy tenants delete",
    "LAST_ADMINISTRATOR": "Give another user with a password that role first: tlsy roles bind",
    "MODULE_REQUIRED": "Switch off what is named first: tlsy modules disable MODULE",
    "MODULE_REQUIRES": "Switch on what is named first: tlsy modules enable MODULE",
    "MODULE_EXCEEDS_PARENT": "Switch it on for the parent first: tlsy modules enable MODULE --tenant PARENT",
    "NOT_AN_ANCESTOR": "No such --tenant, or it is not below yours; see: tlsy tenants list, tlsy whoami",
    "NOT_WRITABLE": _STATE_OF_TENANT,
    "NO_CLUSTER_FOR_MODE": "Choose another --isolation, or add a cluster: tlsy clusters create",
    "NO_CLUSTER_IN_COUNTRY": "Add one there (tlsy clusters create), or allow another: tlsy countries update",
    "NO_PREVIOUS_VERSION": "Choose one with --to; see: tlsy rules versions",
    "PARENT_NOT_ACTIVE": "See the parent's state with: tlsy tenants get",
    "PARENT_NOT_OWN": "Make it below your own tenant, which tlsy whoami names: add --parent TENANT",
    "PLATFORM_TENANT": "Choose another tenant; see: tlsy tenants list",
    "RESIDENCY_IN_USE": "Allow these tenants' countries too, or delete the tenants first.",
    "ROLE_BINDING_LIMIT": "Take another role away first: tlsy roles bindings, tlsy roles unbind",
    "ROLE_UNKNOWN": "See: tlsy roles list",
    "RULES_NOT_COMPILABLE": "Change the rule, or disable another of its event type: tlsy rules disable",
    "RULE_COST_LIMIT": "Make it cheaper (tlsy rules validate), or disable another: tlsy rules disable",
    "RULE_LIMIT": "Stop one (tlsy rules disable), or ask the platform for a higher entitlement rules.",
    "RULE_NAME_LIMIT": "Publish over one that is off (tlsy rules list), or ask for a higher entitlement.",
    "SUB_TENANT_LIMIT": "Delete one, or ask the platform for a higher entitlement sub_tenants.",
    "TENANT_NOT_ACTIVE": _STATE_OF_TENANT,
    "TENANT_NOT_SUSPENDED": _STATE_OF_TENANT,
    "TENANT_STATE": _STATE_OF_TENANT,
    "TIER_SET_BY_PROVIDER": "Ask the platform for another tier.",
    "USER_LIMIT": "Delete one (tlsy users delete), or ask the platform for a higher entitlement users.",
    "VERSION_AMBIGUOUS": "Give more digits; see: tlsy rules versions",
    "VERSION_LIMIT": "Publish it under another name, and stop this one: tlsy rules disable",
    "VERSION_UNREADABLE": "Choose another (tlsy rules versions), or publish it again: tlsy rules publish",
}
_LOG_IN: Final = "Run: tlsy login; with an API key, check that it has not expired and is not revoked."
_LOG_IN_OF_REASON: Final[Mapping[str, str]] = {
    # The server says the same of each, and which it was in its audit log only.
    "API_KEY_REFUSED": (
        "It is mistyped, has expired or was revoked: who may see the keys finds it in tlsy keys list by its "
        "PREFIX, which follows its last _, and makes another: tlsy keys create NAME --output-file FILE."
    ),
    "CREDENTIALS_WRONG": "Check --user and the tenant (--tenant, or the context's), and try again.",
}
#: Refusals that come of the tenant's provider access: always, and where it lets one only begin.
_CLOSED: Final = frozenset({"ONBOARDING_CLOSED", "PROVIDER_ACCESS_DENIED"})
_BEGUN: Final = frozenset({"PERMISSION_MISSING", "ROLE_ABOVE_CALLER"})
_WIDENED: Final = (
    "Whatever your roles, the tenant's provider access (tlsy tenants get {0}) says what you may do in it. "
    "Only its own client-admin, logged in there, widens it: tlsy tenants update {0} --provider-access FULL"
)
_GRANTED: Final = (
    "Only the tenant's own client-admin may, logged in there: "
    "{0}, tlsy context use NAME, tlsy login, then this."
)
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


def failure_of(
    error: errors.ServiceError, context: Context, elsewhere: str = "", *, onboarding: bool = False
) -> CommandError:
    """The same as a command's end.

    Args:
        error: what the server said.
        context: in use.
        elsewhere: the tenant that was acted in, if it is not the credential's own.
        onboarding: it was acted there as who may make the first administrator and keys only.
    """
    # A message that only repeats the violations says nothing beside them.
    listed = error.reason == "REQUEST_INVALID" and error.violations
    what = f"{'The request is not valid.' if listed else error.message} ({error.reason})"
    details = [f"{v.field or '(request)'}: {v.reason}: {v.description}" for v in error.violations]
    if left_out := error.metadata.get(errors.LEFT_OUT_KEY):
        details.append(f"and {left_out} more that found no room in the answer")
    match error:
        case errors.Unauthenticated():
            return NotLoggedInError(what, _LOG_IN_OF_REASON.get(error.reason, _LOG_IN))
        case errors.Unavailable() | errors.DeadlineExceeded() if not error.domain:
            silence = silence_of(error.message, context)
            return UnreachableError(f"The server does not answer: {silence.what}.", silence.next_step)
        case errors.Retryable():
            wait = f"in {error.retry_after_s:g} s" if error.retry_after_s else "in a moment"
            kind = RefusedError if isinstance(error, errors.ResourceExhausted) else UnreachableError
            return kind(what, f"Try again {wait}.")
    if error.reason in _CLOSED or (onboarding and error.reason in _BEGUN):
        return RefusedError(what, _WIDENED.format(slug(elsewhere)))
    return RefusedError(what, _next_step(error, context), details)


def _next_step(error: errors.ServiceError, context: Context) -> str:
    if error.reason == "MODULE_DISABLED":
        return f"Switch it on: tlsy modules enable {error.metadata.get('module', 'MODULE')}"
    if error.reason == "PROVIDER_ACCESS_GRANTED_BY_TENANT":
        return _GRANTED.format(context.another())
    reasons = (error.reason, *(each.reason for each in error.violations))
    known = (_NEXT_OF_REASON[reason] for reason in reasons if reason in _NEXT_OF_REASON)
    return next(known, "") or _NEXT.get(type(error), "See: tlsy doctor")
