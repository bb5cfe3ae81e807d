"""This machine, the servers' health, and databases' catalogues: what `doctor` and `lint` ask."""

from __future__ import annotations

import asyncio
import platform
import shutil
import socket
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tlsy.cli.adapters.failures import failure_of, silence_of
from tlsy.cli.adapters.session import DESCRIPTORS
from tlsy.cli.domain.errors import RefusedError, UnreachableError
from tlsy.cli.domain.tokens import payload
from tlsy.cli.ports import Answer, Identity
from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.rpc.errors import ServiceError
from tlsy.tenancy import migrations
from tlsy.tenancy.lint import lint

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import ServiceDescriptor

    from tlsy.cli.adapters.session import GrpcSession
    from tlsy.cli.domain.tokens import AccessToken
    from tlsy.runtime.clock import Clock

_TIMEOUT_S: Final = 5.0
_LINT_TIMEOUT_S: Final = 60.0


class Machine:
    """The `Diagnosis` port."""

    def __init__(self, session: GrpcSession, clock: Clock, home: Callable[[], Path]) -> None:
        self._session = session
        self._clock = clock
        self._home = home

    def free_bytes(self) -> int:
        """See `Diagnosis.free_bytes`."""
        try:
            path = self._home()
        except RuntimeError:
            path = Path()
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
            raise silence_of(error.details() or error.code().name, self._session.context, service) from error
        serving = answer.status == health_pb2.HealthCheckResponse.SERVING
        return Answer(serving=serving, lacks=await _lacking(channel, descriptor))

    async def identity(self) -> Identity:
        """See `Diagnosis.identity`. A key gets a new token for that, a log-in's token is asked with."""
        session = self._session
        try:
            if fresh := bool(session.context.api_key_file):
                token = await session.exchange_api_key()
            else:
                token = await session.credential()
            got_at_s = self._clock.now().timestamp()
            await self._accepted(token)
        except grpc.aio.AioRpcError as error:
            raise failure_of(ServiceError.from_rpc_error(error), session.context) from error
        claims = payload(token.text)
        issued_at, ends_at = claims.get("iat"), claims.get("exp")
        skew_s = None
        if fresh and isinstance(issued_at, int | float):
            skew_s = issued_at - got_at_s
        elif isinstance(ends_at, int | float):
            # How long it is good was told in whole seconds when it was got, by this clock.
            skew_s = ends_at - token.expires_at_s
        return Identity(principal=token.principal, skew_s=skew_s)

    async def _accepted(self, token: AccessToken) -> None:
        """Returns if identity knows the token, whatever its principal may do."""
        identity = identity_pb2_grpc.IdentityServiceStub(self._session.channel("identity"))
        try:
            await identity.ListRoles(
                identity_pb2.ListRolesRequest(parent=token.tenant),
                metadata=(("authorization", f"Bearer {token.text}"),),
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                raise

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
