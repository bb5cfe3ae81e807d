"""Errors that mean the same on both ends of a call.

A handler raises one of these; the interceptor turns it into a google.rpc.Status with one ErrorInfo (a stable
UPPER_SNAKE reason in the domain "tlsy.<service>"), BadRequest with the violations, and RetryInfo; the caller
gets the same type back with `ServiceError.from_rpc_error`. Reasons are for programs, messages for people:
nobody parses a message. Whether a call may be sent again as it is, is a type: `Retryable` or `Permanent`.

All of it travels in trailing metadata, of which most clients take 8 KiB: long texts are cut, and violations
that find no room are counted in the metadata `violations_left_out`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message

STATUS_KEY: Final = "grpc-status-details-bin"
LEFT_OUT_KEY: Final = "violations_left_out"
#: What both sides of ours take in metadata: half as much again as what is sent; over the second they hang up.
MAX_METADATA_BYTES: Final = 16_384
METADATA_OPTIONS: Final = (
    ("grpc.max_metadata_size", 12_288),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
)
#: As gRPC sends them, a byte that is not ASCII takes three and four bytes of details take three.
_MAX_MESSAGE_SENT: Final = 1024
_MAX_STATUS: Final = 4_800
_MAX_TEXT: Final = 256
#: What the details' type names, the retry and the number of what was left out take.
_ENVELOPES: Final = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field: its path ("rule.name", "events[3].id"), why, and what it must be."""

    field: str
    reason: str
    description: str


class ServiceError(Exception):
    """An answer that is not OK. Raise a concrete subclass.

    Attributes:
        reason: stable, UPPER_SNAKE.
        message: one sentence for people, with what to do next; no secret, nothing of another tenant.
        metadata: facts for programs, e.g. {"module": "reporting"}.
        violations: all of them, not the first; `InvalidArgument` only.
        retry_after_s: how long to wait before the same call again, where that is known.
        domain: "tlsy.<service>" of the service that answered; "" before it was answered.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
        domain: str = "",
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        self.domain = domain

    def to_status(self, domain: str) -> status_pb2.Status:
        """The google.rpc.Status that tells a caller this error; `domain` is the answering service's.

        An error that came from another service keeps that service's domain.
        """
        status = status_pb2.Status(code=_number(self.code), message=_sendable(self.message))
        info = error_details_pb2.ErrorInfo(
            reason=self.reason,
            domain=self.domain or domain,
            metadata={key: value[:_MAX_TEXT] for key, value in self.metadata.items()},
        )
        if self.violations:
            bad = _within(self.violations, _MAX_STATUS - status.ByteSize() - info.ByteSize())
            left_out = len(self.violations) - len(bad.field_violations)
            if left_out:
                info.metadata[LEFT_OUT_KEY] = str(left_out)
            _attach(status, bad)
        _attach(status, info)
        if self.retry_after_s is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
        return status

    @staticmethod
    def from_rpc_error(error: grpc.RpcError) -> ServiceError:
        """What the other side raised; for an error that gRPC itself made, the code's name is the reason.

        RESOURCE_EXHAUSTED by gRPC itself is a message or metadata over its size limit: `TooLarge`.
        """
        if not isinstance(error, grpc.aio.AioRpcError):
            return Internal("UNKNOWN", str(error))
        kind = _KIND_OF.get(error.code(), Internal)
        trailing = error.trailing_metadata() or ()
        raw = next((value for key, value in trailing if key == STATUS_KEY), None)
        message = error.details() or error.code().name
        if not isinstance(raw, bytes):
            return (TooLarge if kind is ResourceExhausted else kind)(error.code().name, message)
        try:
            status = status_pb2.Status.FromString(raw)
        except DecodeError:
            return kind(error.code().name, message, retry_after_s=None)
        return _from_status(kind, error.code().name, message, status)


class Retryable(ServiceError):  # noqa: N818 - subclasses are named as facts
    """The same call may succeed later; nothing of it took effect."""


class Permanent(ServiceError):  # noqa: N818 - subclasses are named as facts
    """The same call will fail again."""


class InvalidArgument(Permanent):
    """The request is wrong whatever the state; `violations` has everything that is."""

    code = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(
        self,
        reason: str = "REQUEST_INVALID",
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after_s: float | None = None,
        domain: str = "",
    ) -> None:
        text = message or "; ".join(f"{v.field}: {v.description}" for v in violations[:3])
        super().__init__(
            reason,
            text,
            metadata=metadata,
            violations=violations,
            retry_after_s=retry_after_s,
            domain=domain,
        )


def collected(parse: Callable[[], T], otherwise: T, violations: list[Violation]) -> T:
    """What `parse` gives; if it refuses, `otherwise`, and its violations are added to the others."""
    try:
        return parse()
    except InvalidArgument as refused:
        violations += refused.violations
        return otherwise


class NotFound(Permanent):
    """There is no such thing, or none that this caller may know of."""

    code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(Permanent):
    """The name is taken."""

    code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(Permanent):
    """The state forbids it until something else is done first."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class OutOfRange(Permanent):
    """Past what there is."""

    code = grpc.StatusCode.OUT_OF_RANGE


class PermissionDenied(Permanent):
    """Known, and not allowed."""

    code = grpc.StatusCode.PERMISSION_DENIED


class RecordedDenial(PermissionDenied):
    """As its parent, of a handler that has put it into the audit log itself."""


class Unauthenticated(Permanent):
    """Not known: no token, or not a valid one."""

    code = grpc.StatusCode.UNAUTHENTICATED


class Unimplemented(Permanent):
    """The service has no such method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Aborted(Permanent):
    """Someone else was faster; read again, decide again (a stale etag)."""

    code = grpc.StatusCode.ABORTED


class Internal(Permanent):
    """A defect of ours; the log has it, the caller does not."""

    code = grpc.StatusCode.INTERNAL


class TooLarge(Permanent):
    """The request or its answer is larger than gRPC lets through here; ask for less."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class ResourceExhausted(Retryable):
    """Over a limit that passes; `retry_after_s` says when there is room again, as every server of ours does.

    A limit that stands until somebody makes room (a tenant's users, its rules) is a `FailedPrecondition`.
    """

    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_s: float,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        domain: str = "",
    ) -> None:
        super().__init__(
            reason,
            message,
            metadata=metadata,
            violations=violations,
            retry_after_s=retry_after_s,
            domain=domain,
        )


class Unavailable(Retryable):
    """Something that is needed is away."""

    code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(Retryable):
    """Not done in time. It may have taken effect: send again with the same request_id."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


_KIND_OF: Final[Mapping[grpc.StatusCode, type[ServiceError]]] = {
    # The server stopped; a caller who gives up himself gets no error of the other side.
    grpc.StatusCode.CANCELLED: Unavailable,
} | {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        OutOfRange,
        PermissionDenied,
        Unauthenticated,
        Unimplemented,
        Aborted,
        Internal,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
    )
}


def _sendable(text: str) -> str:
    """As much of `text` as fits, percent-encoded as gRPC does it."""
    left = _MAX_MESSAGE_SENT
    for index, character in enumerate(text):
        left -= 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if left < 0:
            return text[:index]
    return text


def _within(violations: Sequence[Violation], max_bytes: int) -> error_details_pb2.BadRequest:
    """As many violations, in their order, as fit."""
    bad = error_details_pb2.BadRequest()
    for violation in violations:
        bad.field_violations.add(
            field=violation.field[:_MAX_TEXT],
            reason=violation.reason[:_MAX_TEXT],
            description=violation.description[:_MAX_TEXT],
        )
        if bad.ByteSize() > max_bytes - _ENVELOPES:
            del bad.field_violations[-1]
            break
    return bad


def _number(code: grpc.StatusCode) -> int:
    return int(code.value[0])


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _from_status(
    kind: type[ServiceError], code_name: str, message: str, status: status_pb2.Status
) -> ServiceError:
    info = error_details_pb2.ErrorInfo(reason=code_name)
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return kind(
        info.reason,
        message,
        metadata=dict(info.metadata),
        violations=[Violation(v.field, v.reason, v.description) for v in bad.field_violations],
        retry_after_s=retry_after_s,
        domain=info.domain,
    )
