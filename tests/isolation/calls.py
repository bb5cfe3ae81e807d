"""Every RPC of the suite as its descriptor says, and what a caller gets to read of an answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from dataclasses import dataclass
from importlib import import_module
from pkgutil import walk_packages
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message_factory import GetMessageClass

import tlsy.contracts
from tlsy.contracts.options.v1 import options_pb2
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from google.protobuf.message import Message

TIMEOUT_S: Final = 60.0
#: Refusals by a replica whose catalogue is a moment behind the registry's.
_PASSING: Final = frozenset({"TENANT_NOT_ACTIVE", "TENANT_UNKNOWN", "TENANT_NOT_FOUND"})
#: What may hide text: page tokens, JSON web tokens, etags.
_ENCODED: Final = re.compile(rb"[A-Za-z0-9_-]{16,}")


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of one service."""

    service: str
    method: MethodDescriptor

    @property
    def name(self) -> str:
        return str(self.method.name)

    @property
    def scope(self) -> int:
        return int(self.method.GetOptions().Extensions[options_pb2.rules].scope)

    @property
    def audit(self) -> int:
        return int(self.method.GetOptions().Extensions[options_pb2.rules].audit)

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def _services() -> Iterator[ServiceDescriptor]:
    """Whatever the contracts hold, by the name of its module."""
    for module in sorted(
        walk_packages(tlsy.contracts.__path__, "tlsy.contracts."), key=lambda each: each.name
    ):
        if module.name.endswith("_pb2"):
            yield from import_module(module.name).DESCRIPTOR.services_by_name.values()


RPCS: Final = tuple(
    Rpc(served.full_name.split(".")[1].replace("_", "-"), method)
    for served in _services()
    for method in served.methods
)
BY_NAME: Final[Mapping[str, Rpc]] = {rpc.name: rpc for rpc in RPCS}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller got: a code, a reason, the (first) message, and every byte that could be read."""

    code: grpc.StatusCode
    reason: str
    message: Any
    text: bytes


class Client:
    """Calls replicas as anybody could who reaches their sockets: no retries, nothing checked beforehand."""

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        self._channels = {
            service: [grpc.aio.insecure_channel(address) for address in replicas]
            for service, replicas in addresses.items()
        }

    def begin(self, rpc: Rpc, request: Message, token: str = "", replica: int = 0, tag: str = "") -> Any:
        """The call, not awaited; `tag` is the request id that its log lines have."""
        channels = self._channels[rpc.service]
        channel = channels[replica % len(channels)]
        metadata = [("x-request-id", tag)] if tag else []
        if token:
            metadata.append(("authorization", f"Bearer {token}"))
        opened = channel.unary_stream if rpc.method.server_streaming else channel.unary_unary
        start: Any = opened(
            rpc.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(rpc.method.output_type).FromString,
        )
        return start(request, metadata=metadata, timeout=TIMEOUT_S)

    async def ask(
        self, rpc: Rpc, request: Message, token: str = "", replica: int = 0, tag: str = ""
    ) -> Answer:
        """The answer; of a stream its first message."""
        call: Any = self.begin(rpc, request, token, replica, tag)
        try:
            message = await (call.read() if rpc.method.server_streaming else call)
        except grpc.aio.AioRpcError as error:
            return Answer(error.code(), ServiceError.from_rpc_error(error).reason, None, _all_of(error))
        finally:
            if rpc.method.server_streaming:
                call.cancel()
        return Answer(grpc.StatusCode.OK, "", message, readable(message.SerializeToString()))

    async def get(self, rpc: str, request: Message, token: str = "", tag: str = "") -> Any:
        """The message of a call that must succeed; repeated while a catalogue is behind or a server away."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                answer = await self.ask(BY_NAME[rpc], request, token, tag=tag)
                if answer.reason not in _PASSING and answer.code is not grpc.StatusCode.UNAVAILABLE:
                    break
                await asyncio.sleep(0.05)
        assert answer.code is grpc.StatusCode.OK, (rpc, answer)
        return answer.message

    async def close(self) -> None:
        for channels in self._channels.values():
            for channel in channels:
                await channel.close()


def readable(raw: bytes) -> bytes:
    """The bytes, and whatever is in them in base64."""
    return b"\n".join((raw, *(_decoded(found) for found in _ENCODED.findall(raw))))


def _decoded(found: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(found + b"=" * (-len(found) % 4))
    except (binascii.Error, ValueError):
        return b""


def _all_of(error: grpc.aio.AioRpcError) -> bytes:
    """Message, details and both kinds of metadata."""
    parts = [(error.details() or "").encode(), (error.debug_error_string() or "").encode()]
    for metadata in (error.initial_metadata(), error.trailing_metadata()):
        for key, value in metadata or ():
            parts += [key.encode(), value if isinstance(value, bytes) else value.encode()]
    return readable(b"\n".join(parts))
