"""A gRPC server of one service: its methods behind the interceptor, health, reflection, keep-alive, drain."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import grpc
import protovalidate
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from tlsy.rpc.admission import Admission
from tlsy.rpc.certificates import server_credentials
from tlsy.rpc.errors import METADATA_OPTIONS
from tlsy.rpc.interceptor import CallInterceptor, Deadlines
from tlsy.rpc.keep_alive import KeepAlive
from tlsy.rpc.limits import InFlight, RequestRates
from tlsy.rpc.methods import ContractInvalid, Method, methods_of
from tlsy.rpc.observer import CallObserver
from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from google.protobuf.descriptor import ServiceDescriptor

    from tlsy.rpc.crossings import Crossings
    from tlsy.rpc.denials import DenialSink
    from tlsy.rpc.tokens import TokenVerifier
    from tlsy.runtime.host import Host, TlsFiles
    from tlsy.runtime.service import Readiness
    from tlsy.tenancy.catalog import Catalog

#: A batch of 4 MiB of events, and room for the envelope.
MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024 + 64 * 1024
MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
_HEALTH: Final = "grpc.health.v1.Health"
_KEEP_EVERY_S: Final = 0.1
_KEEP_UNREADY_EVERY_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The bounds of one server.

    Attributes:
        default_deadline_s: of calls that bring none.
        max_deadline_s: of calls.
        max_stream_s: of streams; a reader begins again after it.
        max_in_flight: calls at once.
        max_in_flight_per_tenant: of one tenant, so that it leaves room for others.
        max_in_flight_public: without a token, whoever sends them, so that they leave room for others.
        max_streams_per_tenant: streams of one tenant at once.
        max_open_streams: of health and reflection at once, which whoever reaches the server may open.
        default_requests_per_s: of tenants without the entitlement `requests_per_s`.
        log_ratio: share of good calls that get a log line.
        keep_alive: when a caller that says nothing is gone.
    """

    default_deadline_s: float = 30.0
    max_deadline_s: float = 60.0
    max_stream_s: float = 3600.0
    max_in_flight: int = 1000
    max_in_flight_per_tenant: int = 250
    max_in_flight_public: int = 500
    max_streams_per_tenant: int = 20
    max_open_streams: int = 100
    default_requests_per_s: int = 500
    log_ratio: float = 0.01
    keep_alive: KeepAlive = field(default_factory=KeepAlive)


@dataclass(frozen=True, slots=True)
class Served:
    """One gRPC service: its descriptor, the generated `add_…_to_server`, and what answers."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object


def build_server(
    host: Host,
    served: Sequence[Served],
    *,
    verifier: TokenVerifier,
    catalog: Catalog,
    denials: DenialSink,
    crossings: Crossings,
    ready: Callable[[], Readiness],
    limits: ServerLimits | None = None,
) -> RpcServer:
    """The server of a service, not started.

    Args:
        host: says where to listen.
        served: everything that it answers.
        verifier: checks tokens.
        catalog: knows tenants.
        denials: is told of refused calls.
        crossings: is told of reads by those of other tenants.
        ready: asked ten times a second, when streams are looked at too, and more often until it is; health
            follows it.
        limits: its bounds.

    Raises:
        ContractInvalid: methods without rules, with unknown permissions or modules; all of them.
    """
    bounds = limits or ServerLimits()
    methods: dict[str, Method] = {}
    problems: list[str] = []
    validator = protovalidate.Validator()
    for each in served:
        try:
            methods.update(methods_of(each.descriptor, validator))
        except ContractInvalid as error:
            problems += error.problems
    if problems:
        raise ContractInvalid(tuple(problems))
    in_flight = InFlight(
        bounds.max_in_flight,
        bounds.max_in_flight_per_tenant,
        bounds.max_in_flight_public,
        bounds.max_streams_per_tenant,
        bounds.max_open_streams,
    )
    interceptor = CallInterceptor(
        f"tlsy.{host.service}",
        methods,
        admission=Admission(
            verifier=verifier,
            catalog=catalog,
            denials=denials,
            rates=RequestRates(host.clock, bounds.default_requests_per_s),
            clock=host.clock,
        ),
        crossings=crossings,
        observer=CallObserver(host.telemetry, host.clock, host.random, in_flight, log_ratio=bounds.log_ratio),
        in_flight=in_flight,
        deadlines=Deadlines(
            default_s=bounds.default_deadline_s,
            max_s=bounds.max_deadline_s,
            max_stream_s=bounds.max_stream_s,
        ),
        clock=host.clock,
    )
    return RpcServer(
        host.listen, served, interceptor, ready=ready, tls=host.tls, keep_alive=bounds.keep_alive
    )


class RpcServer:
    """A component that answers calls.

    Health says NOT_SERVING until `ready` and whenever it is not, per service and for the whole. To stop is:
    NOT_SERVING, streams ended with UNAVAILABLE, calls finished within the grace, the rest cut off.
    """

    __slots__ = (
        "_health",
        "_health_task",
        "_interceptor",
        "_listen",
        "_logger",
        "_names",
        "_options",
        "_ready",
        "_served",
        "_server",
        "_stopped",
        "_tls",
        "port",
    )

    def __init__(
        self,
        listen: str,
        served: Sequence[Served],
        interceptor: CallInterceptor,
        *,
        ready: Callable[[], Readiness],
        tls: TlsFiles | None,
        keep_alive: KeepAlive,
    ) -> None:
        self._listen = listen
        self._options = (*_OPTIONS, *keep_alive.of_server())
        self._served = tuple(served)
        self._interceptor = interceptor
        self._ready = ready
        self._tls = tls
        self._names = ("", *(each.descriptor.full_name for each in served))
        self._health = health.HealthServicer()
        self._health_task: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._stopped = asyncio.Event()
        self._logger = get_logger("rpc.server")
        #: The TCP port that it listens on, once started; 1 on a unix socket.
        self.port = 0

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return "rpc"

    async def start(self) -> None:
        """Listen and answer.

        Raises:
            RuntimeError: the address is taken or cannot be had.
            OSError: its certificate, key or authority cannot be read.
            ValueError: they do not fit each other.
        """
        credentials = server_credentials(self._tls) if self._tls is not None else None
        server = grpc.aio.server(interceptors=[self._interceptor], options=self._options)
        for each in self._served:
            each.add(each.servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*self._names[1:], _HEALTH, reflection.SERVICE_NAME), server)
        await self._set_health(serving=False)
        try:
            if credentials is None:
                self.port = server.add_insecure_port(self._listen)
            else:
                self.port = server.add_secure_port(self._listen, credentials)
            await server.start()
        except RuntimeError:
            await server.stop(None)
            raise
        self._server = server
        self._health_task = asyncio.create_task(self._keep())

    async def stop(self, grace_s: float) -> None:
        """See the class."""
        if self._server is None:
            return
        if self._health_task is not None:
            self._health_task.cancel()
        await self._health.enter_graceful_shutdown()
        self._interceptor.end_streams()
        await self._server.stop(grace_s)
        self._stopped.set()

    async def wait(self) -> None:
        """See `Component.wait`; it breaks if its readiness cannot be told."""
        if self._health_task is None:
            return
        # Not wait_for_termination: cancelling that would cancel the stop that others wait for.
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({stopped, self._health_task}, return_when=asyncio.FIRST_COMPLETED)
            if self._health_task.done() and not self._health_task.cancelled():
                self._health_task.result()
            await stopped
        finally:
            stopped.cancel()

    async def _keep(self) -> None:
        """Health follows readiness, and streams end with what they were let in by."""
        was: bool | None = None
        while True:
            readiness = self._ready()
            if bool(readiness) is not was:
                was = bool(readiness)
                await self._set_health(serving=was)
                self._logger.info("serving" if was else "not serving", missing=list(readiness.missing))
            self._interceptor.check_streams()
            await asyncio.sleep(_KEEP_EVERY_S if was else _KEEP_UNREADY_EVERY_S)

    async def _set_health(self, *, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for name in self._names:
            await self._health.set(name, states.SERVING if serving else states.NOT_SERVING)


_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
    *METADATA_OPTIONS,
    # Two servers on one port would share its calls in silence.
    ("grpc.so_reuseport", 0),
)
