"""Requests and responses between bytes and the one version of each API that handlers speak."""

from __future__ import annotations

import io
import struct
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from kio.index import KioIndexError, load_request_schema, load_response_schema
from kio.schema.response_header.v0 import ResponseHeader as HeaderV0
from kio.schema.response_header.v1 import ResponseHeader as HeaderV1
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import i32
from kio.static.protocol import Entity, ResponsePayload

from tlsy.broker.api import API_VERSIONS_KEY, NO_THROTTLE, PRODUCE_KEY, Api, MalformedRequestError
from tlsy.broker.produce_shape import check_produce_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kio.serial.readers import Reader

E = TypeVar("E", bound=Entity)

_START: Final = struct.Struct(">hhi")
_SIZE: Final = struct.Struct(">i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A decoded request; `body` is of the API's newest version. No `api`: an unknown ApiVersions version."""

    api: Api | None
    version: int
    correlation_id: int
    client_id: str
    body: Entity | None


class Codec:
    """Decodes frames to requests of the newest version, encodes responses to the version that was asked.

    Versions are bridged by field name: a field that one version lacks takes the protocol's default or is
    left out. That is right for the versions offered, none of which moves a field.
    """

    def __init__(self, apis: Mapping[int, Api], *, max_produce_parts: int) -> None:
        self._apis = apis
        self._max_produce_parts = max_produce_parts
        self._plans: dict[type[Entity], tuple[_Field, ...]] = {}
        self._readers: dict[tuple[int, int], tuple[Reader[Entity], Reader[Entity]]] = {}
        self._schemas: dict[tuple[int, int], type[ResponsePayload]] = {}

    def decode(self, frame: bytes) -> Request:
        """Read one frame without its length.

        Raises:
            MalformedRequestError: not a request, or not of an API and version offered.
        """
        try:
            key, version, correlation_id = _START.unpack_from(frame)
        except struct.error as error:
            raise MalformedRequestError("shorter than a request header") from error
        api = self._apis.get(key)
        if api is None:
            raise MalformedRequestError(f"API {key} is not offered")
        if not api.oldest_version <= version <= api.newest_version:
            if key == API_VERSIONS_KEY:
                return Request(api=None, version=0, correlation_id=correlation_id, client_id="", body=None)
            raise MalformedRequestError(f"version {version} of API {key} is not offered")
        if key == PRODUCE_KEY:
            check_produce_shape(frame, max_parts=self._max_produce_parts)
        try:
            read_header, read_body = self._readers_of(key, version)
            header, size = read_header(frame, 0)
            body, _ = read_body(frame, size)
            self._check_nulls(body)
            lifted = self.convert(body, api.newest)
        except KioIndexError as error:
            raise MalformedRequestError(f"version {version} of API {key} has no codec") from error
        except Exception as error:  # the reader raises many types on hostile bytes, all mean the same
            raise MalformedRequestError(f"API {key} version {version}: {error}") from error
        client_id = getattr(header, "client_id", None) or ""
        return Request(
            api=api, version=version, correlation_id=correlation_id, client_id=client_id, body=lifted
        )

    def encode(self, response: ResponsePayload, version: int, correlation_id: int) -> bytes:
        """Write a response as a whole frame, in the version of its request."""
        asked = response.__api_key__, version
        schema = self._schemas.get(asked)
        if schema is None:
            schema = self._schemas[asked] = load_response_schema(*asked)
        return self._frame(self.convert(response, schema), correlation_id)

    def convert(self, entity: Entity, target: type[E]) -> E:
        """`entity` as the same message of another version."""
        if type(entity) is target:
            return entity
        return target(**{planned.name: self._value(entity, planned) for planned in self._plan(target)})

    def _check_nulls(self, entity: Entity) -> None:
        """Raise ValueError for a null array where the message has none: its reader takes it everywhere."""
        for planned in self._plan(type(entity)):
            if planned.is_array:
                value = getattr(entity, planned.name)
                if value is None and not planned.is_nullable:
                    raise ValueError(f"{planned.name} is null")
                if planned.entity is not None:
                    for item in value or ():
                        self._check_nulls(item)

    def _readers_of(self, key: int, version: int) -> tuple[Reader[Entity], Reader[Entity]]:
        readers = self._readers.get((key, version))
        if readers is None:
            schema = load_request_schema(key, version)
            readers = entity_reader(schema.__header_schema__), entity_reader(schema)
            self._readers[key, version] = readers
        return readers

    @staticmethod
    def _frame(response: ResponsePayload, correlation_id: int) -> bytes:
        buffer = io.BytesIO()
        buffer.write(_SIZE.pack(0))
        header = response.__header_schema__
        if header is HeaderV1:
            entity_writer(HeaderV1)(buffer, HeaderV1(correlation_id=i32(correlation_id)))
        else:
            entity_writer(HeaderV0)(buffer, HeaderV0(correlation_id=i32(correlation_id)))
        entity_writer(type(response))(buffer, response)
        buffer.seek(0)
        buffer.write(_SIZE.pack(buffer.getbuffer().nbytes - _SIZE.size))
        return buffer.getvalue()

    def _value(self, entity: Entity, planned: _Field) -> object:
        value = getattr(entity, planned.name, MISSING)
        if value is MISSING:
            return planned.default
        if planned.entity is None or value is None:
            return value
        if isinstance(value, tuple):
            return tuple(self.convert(item, planned.entity) for item in value)
        return self.convert(value, planned.entity)

    def _plan(self, target: type[Entity]) -> tuple[_Field, ...]:
        plan = self._plans.get(target)
        if plan is None:
            hints = get_type_hints(target)
            plan = tuple(
                _Field(
                    field.name,
                    _nested_entity(hints[field.name]),
                    field.default if field.default is not MISSING else _zero(hints[field.name]),
                    is_array=_is_array(hints[field.name]),
                    is_nullable=NoneType in get_args(hints[field.name]),
                )
                for field in fields(target)
            )
            self._plans[target] = plan
        return plan


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    entity: type[Entity] | None
    default: object
    is_array: bool
    is_nullable: bool


def _is_array(hint: object) -> bool:
    """Whether it is `tuple[X, ...]` or `tuple[X, ...] | None`."""
    return any(get_origin(part) is tuple for part in (hint, *get_args(hint)))


def _nested_entity(hint: object) -> type[Entity] | None:
    """The message type inside `X`, `X | None`, `tuple[X, ...]` or `tuple[X, ...] | None`, if it is one."""
    for argument in get_args(hint):
        found = _nested_entity(argument)
        if found is not None:
            return found
    return hint if isinstance(hint, type) and hasattr(hint, "__flexible__") else None


def _zero(hint: object) -> object:
    """The protocol's implicit default: zero, false or empty."""
    origin = get_origin(hint)
    if origin is Union or origin is UnionType:
        return _zero(get_args(hint)[0])
    if origin is tuple:
        return ()
    if not isinstance(hint, type):
        raise TypeError(f"no implicit default for {hint!r}")
    for kind, zero in ((bool, False), (int, 0), (str, ""), (bytes, b""), (timedelta, NO_THROTTLE)):
        if issubclass(hint, kind):
            return zero
    raise TypeError(f"no implicit default for {hint!r}")
