"""This machine, the servers' health, and databases' catalogues: what `doctor` and `lint` ask."""

from __future__ import annotations

import asyncio
import platform
import shutil
import socket
from importlib import metadata
from typing import TYPE_CHECKING, Final

import asyncpg
import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tlsy.cli.adapters.session import DESCRIPTORS
from tlsy.cli.domain.errors import RefusedError, UnreachableError, UsageError
from tlsy.cli.domain.tokens import payload
from tlsy.cli.ports import Answer
from tlsy.tenancy import migrations
from tlsy.tenancy.lint import lint

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf.descriptor import ServiceDescriptor

    from tlsy.cli.adapters.session import GrpcSession
    from tlsy.runtime.clock import Clock

_TIMEOUT_S: Final = 5.0
_LINT_TIMEOUT_S: Final = 60.0


class Machine:
    """The `Diagnosis` port."""

    def __init__(self, session: GrpcSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    def free_bytes(self, path: Path) -> int:
        """See `Diagnosis.free_bytes`."""
        try:
            return shutil.disk_usage(path).free
        except OSError as error:
            raise RefusedError(
                f"{path}: {error.strerror}", "Make it a directory that can be read."
            ) from error

    def bind_loopback(self) -> None:
        """See `Diagnosis.bind_loopback`."""
        try:
            with socket.create_server(("127.0.0.1", 0)):
                return
        except OSError as error:
            raise RefusedError(
                f"No port on 127.0.0.1 can be listened on: {error.strerror}",
                "Bring the loopback interface up.",
            ) from error

    def versions(self) -> dict[str, str]:
        """See `Diagnosis.versions`."""
        ours = {
            dist.metadata["Name"]: dist.version
            for dist in metadata.distributions()
            if (dist.metadata["Name"] or "").startswith("tlsy-")
        }
        return {"python": platform.python_version(), **dict(sorted(ours.items()))}

    async def ask(self, service: str) -> Answer:
        """See `Diagnosis.ask`."""
        address, descriptor = self._session.context.address(service), DESCRIPTORS[service]
        channel = self._session.channel(service)
        health = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await health.Check(
                health_pb2.HealthCheckRequest(service=descriptor.full_name), timeout=_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise UnreachableError(
                    f"another service answers at {address}", "Correct the context's addresses."
                ) from error
            raise UnreachableError(
                f"{address} does not answer: {error.code().name}",
                "Start it, or correct the context's address.",
            ) from error
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        return Answer(serving=serving, lacks=await _lacking(channel, descriptor))

    async def skew_s(self) -> float:
        """See `Diagnosis.skew_s`. A new token says when it was issued, to the fraction of a second."""
        before_s = self._clock.now().timestamp()
        try:
            token = await self._session.exchange_api_key()
        except grpc.aio.AioRpcError as error:
            raise UnreachableError(
                f"no token to compare with: {error.code().name}", "See what is said of identity and the key."
            ) from error
        except UsageError as error:
            raise UnreachableError(
                "no API key, so no fresh token to compare with", error.next_step
            ) from error
        after_s = self._clock.now().timestamp()
        issued_at = payload(token.text).get("iat")
        if not isinstance(issued_at, int | float):
            raise UnreachableError("the token does not say when it was issued", "Upgrade the server.")
        return float(issued_at) - (before_s + after_s) / 2

    async def lint(self, dsn: str) -> list[dict[str, str]]:
        """See `Diagnosis.lint`."""
        try:
            async with asyncio.timeout(_LINT_TIMEOUT_S):
                connection = await asyncpg.connect(dsn, timeout=_TIMEOUT_S)
                try:
                    findings = await lint(connection, migrations.installed())
                finally:
                    await connection.close(timeout=_TIMEOUT_S)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise UnreachableError(
                f"The database cannot be read: {error}",
                "Check --dsn: postgresql://user:password@host/database",
            ) from error
        return [
            {"code": found.code, "object": found.object, "message": found.message, "fix": found.fix}
            for found in findings
        ]


async def _lacking(channel: grpc.aio.Channel, descriptor: ServiceDescriptor) -> tuple[str, ...]:
    """Methods of ours that the server's own description of the service has not; none if it gives none."""
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=descriptor.full_name)
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([request]), timeout=_TIMEOUT_S
    )
    try:
        async for answer in call:
            for raw in answer.file_descriptor_response.file_descriptor_proto:
                file = FileDescriptorProto.FromString(raw)
                for service in file.service:
                    if f"{file.package}.{service.name}" == descriptor.full_name:
                        theirs = {method.name for method in service.method}
                        return tuple(m.name for m in descriptor.methods if m.name not in theirs)
    except grpc.aio.AioRpcError:
        return ()
    return ()
