"""What the interceptor must know of each method, worked out once from its descriptor.

A method says its scope, permission, module and audit level in its proto; one that does not, or asks for a
permission that no role has, keeps its server from being built.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from google.protobuf.message_factory import GetMessageClass

from tlsy.contracts.buf.validate import validate_pb2
from tlsy.contracts.options.v1 import options_pb2
from tlsy.contracts.wire import KINDS, read_field
from tlsy.rpc.errors import InvalidArgument, Violation
from tlsy.rpc.permissions import MODULES, PERMISSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import protovalidate
    from google.protobuf import descriptor as proto
    from google.protobuf.message import Message

#: Messages that hold a tenant's own data and many of them: never read as names, never validated per field.
DATA_MESSAGES: Final = frozenset({"tlsy.ingestion.v1.Event"})
#: Text that people write. Every other text field that starts with "tenants/" is taken for a resource name, so
#: that a new field cannot be forgotten.
FREE_TEXT: Final = frozenset({"display_name", "note", "reason"})
#: Fields that name another tenant on purpose, checked by the handler: "target_tenant".
TARGET_PREFIX: Final = "target_"
NAME_PREFIX: Final = "tenants/"
_REQUEST_ID: Final = "request_id"
#: Of a request that is no batch, and of each event of one. A map of 300,000 labels, which is 3 MB, takes the
#: parser two seconds, in which nobody else is answered.
_MAX_PART_BYTES: Final = 512 * 1024
#: Of a request in a PUBLIC method, which anybody sends: more than the longest good one. Validation takes
#: a third of a second to tell of 512 KiB of texts that are too long.
_MAX_PUBLIC_BYTES: Final = 16 * 1024
#: Twice the events that a batch may have, of which its handler tells: to count millions takes a second, too.
_MAX_PARTS: Final = 20_000


class ContractInvalid(Exception):  # noqa: N818 - read as a fact
    """Methods that cannot be served as they are declared; `problems` has all of them."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method, ready to be enforced.

    Attributes:
        name: "tlsy.identity.v1.IdentityService/CreateUser".
        scope: an options_pb2.Scope value.
        permission: "" in PUBLIC methods.
        module: "" where the method belongs to none.
        audit: an options_pb2.Audit value.
        streams: whether the answer is a stream.
        takes_request_id: whether the request has a request_id.
        names: finds the resource names in a request.
        checks: validates a request.
    """

    name: str
    scope: int
    permission: str
    module: str
    audit: int
    streams: bool
    takes_request_id: bool
    names: NameFields
    checks: RequestChecks


def methods_of(service: proto.ServiceDescriptor, validator: protovalidate.Validator) -> Mapping[str, Method]:
    """The service's methods by the path that gRPC calls them by: "/package.Service/Method".

    Raises:
        ContractInvalid: with every problem of every method.
    """
    problems: list[str] = []
    found: dict[str, Method] = {}
    for method in service.methods:
        rules = method.GetOptions().Extensions[options_pb2.rules]
        problems += [f"{service.full_name}/{method.name}: {p}" for p in _problems(method, rules)]
        request_id = method.input_type.fields_by_name.get(_REQUEST_ID)
        found[f"/{service.full_name}/{method.name}"] = Method(
            name=f"{service.full_name}/{method.name}",
            scope=rules.scope,
            permission=rules.permission,
            module=rules.module,
            audit=rules.audit,
            streams=method.server_streaming,
            takes_request_id=request_id is not None,
            names=NameFields(method.input_type),
            checks=RequestChecks(
                method.input_type,
                validator,
                _MAX_PUBLIC_BYTES if rules.scope == options_pb2.SCOPE_PUBLIC else _MAX_PART_BYTES,
            ),
        )
    if problems:
        raise ContractInvalid(tuple(problems))
    return found


def _problems(method: proto.MethodDescriptor, rules: options_pb2.Rules) -> list[str]:
    problems = []
    if method.client_streaming:
        problems.append("takes a stream; send batches")
    if rules.scope == options_pb2.SCOPE_UNSPECIFIED:
        problems.append("declares no scope")
    if rules.audit == options_pb2.AUDIT_UNSPECIFIED:
        problems.append("declares no audit level")
    if rules.scope == options_pb2.SCOPE_PUBLIC:
        if rules.permission or rules.module:
            problems.append("is public and yet asks for a permission or a module")
    elif rules.permission not in PERMISSIONS:
        problems.append(f'asks for the permission "{rules.permission}", which no role has')
    if rules.module and rules.module not in MODULES:
        problems.append(f'belongs to the module "{rules.module}", which there is not')
    return problems


class NameFields:
    """Finds the resource names in a message: the values that start with "tenants/".

    Looked at are all text fields, single and repeated, at any depth, except free text, secrets, fields named
    target_*, maps, and messages of google.protobuf or DATA_MESSAGES.
    """

    __slots__ = ("_messages", "_repeated", "_texts")

    def __init__(self, message: proto.Descriptor, _known: dict[str, NameFields] | None = None) -> None:
        known = _known if _known is not None else {}
        known[message.full_name] = self
        texts: list[str] = []
        repeated: list[str] = []
        messages: list[tuple[str, bool, NameFields]] = []
        for field in message.fields:
            many = field.is_repeated
            if field.type == field.TYPE_STRING and _may_hold_names(field):
                (repeated if many else texts).append(field.name)
            elif field.message_type is not None and _has_own_fields(field.message_type):
                inner = known.get(field.message_type.full_name) or NameFields(field.message_type, known)
                messages.append((field.name, many, inner))
        self._texts = tuple(texts)
        self._repeated = tuple(repeated)
        self._messages = tuple(messages)

    def first_foreign(self, message: Message, own: str) -> str | None:
        """The first name in `message` that is neither `own` ("tenants/acme") nor below it, if any."""
        below = own + "/"
        for field in self._texts:
            value: str = getattr(message, field)
            if value.startswith(NAME_PREFIX) and value != own and not value.startswith(below):
                return value
        for field in self._repeated:
            for value in getattr(message, field):
                if value.startswith(NAME_PREFIX) and value != own and not value.startswith(below):
                    return value
        for field, many, inner in self._messages:
            nested = getattr(message, field) if many else ()
            if not many and message.HasField(field):
                nested = (getattr(message, field),)
            for item in nested:
                foreign = inner.first_foreign(item, own)
                if foreign is not None:
                    return foreign
        return None

    def first(self, message: Message) -> str:
        """The first name in `message`, "" if there is none: what a record of the call calls its resource."""
        return self.first_foreign(message, "") or ""


def _may_hold_names(field: proto.FieldDescriptor) -> bool:
    return (
        field.name not in FREE_TEXT
        and not field.name.startswith(TARGET_PREFIX)
        and not field.GetOptions().debug_redact
    )


def _has_own_fields(message: proto.Descriptor) -> bool:
    return not (
        message.GetOptions().map_entry
        or message.full_name.startswith("google.protobuf.")
        or message.full_name in DATA_MESSAGES
    )


class RequestChecks:
    """Validates requests of one type against the rules in their proto, all violations at once.

    Fields whose messages carry no rules are left out of what is validated: a batch of 10,000 events would
    otherwise be copied for nothing.
    """

    __slots__ = ("_is_batch", "_max_bytes", "_message", "_partial", "_validator")

    def __init__(
        self, message: proto.Descriptor, validator: protovalidate.Validator, max_bytes: int = _MAX_PART_BYTES
    ) -> None:
        self._validator = validator
        self._max_bytes = max_bytes
        inner = [field.message_type for field in message.fields if field.message_type is not None]
        self._is_batch = any(each.full_name in DATA_MESSAGES for each in inner)
        ruled = tuple(field for field in message.fields if _has_rules(field, frozenset()))
        skipped = [
            field
            for field in message.fields
            if field not in ruled and field.type == field.TYPE_MESSAGE and field.is_repeated
        ]
        self._message = GetMessageClass(message) if ruled else None
        self._partial = tuple(field.name for field in ruled) if skipped else ()

    def check_size(self, raw: bytes) -> None:
        """Pass if it may be parsed.

        Raises:
            InvalidArgument: reason REQUEST_TOO_LARGE.
        """
        if len(raw) > self._max_bytes and not (self._is_batch and _parts_fit(raw)):
            text = f"A request, and each event of a batch, is at most {self._max_bytes} bytes."
            if self._is_batch:
                text += f" A batch beyond that is of at most {_MAX_PARTS} fields."
            raise InvalidArgument("REQUEST_TOO_LARGE", text)

    def check(self, request: Message) -> None:
        """Pass if `request` is valid.

        Raises:
            InvalidArgument: reason REQUEST_INVALID, a violation per broken rule, its reason being the rule's
                name in upper case ("STRING_MAX_LEN").
        """
        if self._message is None:
            return
        if self._partial:
            request = self._ruled_part(request)
        violations = self._validator.collect_violations(request)
        if violations:
            raise InvalidArgument(violations=[_violation(violation) for violation in violations])

    def _ruled_part(self, request: Message) -> Message:
        part: Message = self._message()  # type: ignore[misc]  # check() returns first where it is None
        for name in self._partial:
            field = request.DESCRIPTOR.fields_by_name[name]
            if field.is_repeated:
                getattr(part, name).MergeFrom(getattr(request, name))
            elif field.type == field.TYPE_MESSAGE:
                if request.HasField(name):
                    getattr(part, name).CopyFrom(getattr(request, name))
            elif not field.has_presence or request.HasField(name):
                setattr(part, name, getattr(request, name))
        return part


def _parts_fit(raw: bytes) -> bool:
    """Whether a message has few fields, none too long, no groups; of what is none the parser will tell."""
    at, last, parts = 0, len(raw) - _MAX_PART_BYTES, 0
    try:
        while at < last:
            parts += 1
            tag, begin, at = read_field(raw, at)
            if at - begin > _MAX_PART_BYTES or tag & 7 not in KINDS or parts > _MAX_PARTS:
                return False
    except (IndexError, ValueError):
        pass  # no message: the parser refuses it
    return True


def _has_rules(field: proto.FieldDescriptor, above: frozenset[str]) -> bool:
    if field.GetOptions().HasExtension(validate_pb2.field):
        return True
    inner = field.message_type
    if inner is None or inner.full_name in above:
        return False
    if inner.GetOptions().HasExtension(validate_pb2.message):
        return True
    return any(_has_rules(nested, above | {inner.full_name}) for nested in inner.fields)


def _violation(violation: protovalidate.Violation) -> Violation:
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += ("." if path else "") + element.field_name
        if element.subscript is not None:
            path += f"[{getattr(element.subscript, 'value', element.subscript)}]"
    reason = violation.proto.rule_id.upper().replace(".", "_")
    return Violation(path, reason or "INVALID", violation.proto.message)


def request_hash(request: Message) -> bytes:
    """SHA-256 of the request without its request_id: the same body again has the same hash."""
    body = type(request)()
    body.CopyFrom(request)
    body.ClearField(_REQUEST_ID)
    return hashlib.sha256(body.SerializeToString(deterministic=True)).digest()
