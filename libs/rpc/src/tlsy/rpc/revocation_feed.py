"""Keeps a service's deny-list and identity's public keys fresh."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from uuid import UUID

import grpc
from prometheus_client import Gauge

from tlsy.contracts.events import PRINCIPAL_REVOKED, SIGNING_KEY_ROTATED
from tlsy.contracts.identity.events.v1.events_pb2 import PrincipalRevoked, SigningKeyRotated
from tlsy.contracts.identity.v1.identity_pb2 import GetJwksRequest, ListRevocationsRequest, Revocation
from tlsy.rpc.catalog import first_of
from tlsy.runtime.ids import PrincipalName, TenantId
from tlsy.runtime.logging import get_logger
from tlsy.runtime.service import Task

if TYPE_CHECKING:
    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.contracts.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub
    from tlsy.rpc.keys import Jwks
    from tlsy.rpc.revocations import DenyList
    from tlsy.runtime.clock import Clock
    from tlsy.runtime.telemetry import Telemetry

_TIMEOUT_S: Final = 10.0
_SWEEP_S: Final = 30.0
_FIRST_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 5.0
_MAX_PAGES: Final = 1000


class RevocationFeed:
    """Reads all revocations and keys at the start, then follows events, and reads all again twice a minute.

    While identity is away both stay as they are. A component.
    """

    #: What `on_event` is to be fed with.
    EVENT_TYPES: Final = frozenset({PRINCIPAL_REVOKED, SIGNING_KEY_ROTATED})

    __slots__ = ("_clock", "_deny_list", "_identity", "_jwks", "_loaded", "_logger", "_read_at", "_task")

    def __init__(
        self,
        identity: IdentityServiceAsyncStub,
        jwks: Jwks,
        deny_list: DenyList,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._identity = identity
        self._jwks = jwks
        self._deny_list = deny_list
        self._clock = clock
        self._loaded = asyncio.Event()
        self._read_at = clock.monotonic()
        self._logger = get_logger("rpc.revocations")
        self._task = Task("revocations", self._run)
        age = Gauge(
            "tlsy_rpc_trust_age_seconds",
            "Since identity last answered for what it is asked about.",
            ("of",),
            registry=telemetry.registry,
        )
        age.labels("revocations").set_function(lambda: clock.monotonic() - self._read_at)
        age.labels("keys").set_function(jwks.age_s)

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return self._task.name

    async def start(self) -> None:
        """Begin to read; does not wait for identity."""
        await self._task.start()

    async def stop(self, grace_s: float) -> None:
        """See `Component.stop`."""
        await self._task.stop(grace_s)

    async def wait(self) -> None:
        """See `Component.wait`."""
        await self._task.wait()

    @property
    def loaded(self) -> bool:
        """Whether revocations and keys have been read once."""
        return self._loaded.is_set()

    async def wait_ready(self) -> None:
        """Return once revocations and keys have been read."""
        await self._loaded.wait()

    def missing(self) -> str | None:
        """A readiness check: what is missing, if anything is."""
        return None if self.loaded else "identity's keys and revocations have not been read yet"

    def on_event(self, event: CloudEvent) -> None:
        """Take a PrincipalRevoked or a SigningKeyRotated; other types are left alone."""
        if event.type == PRINCIPAL_REVOKED:
            self._revoke(PrincipalRevoked.FromString(event.data).revocation)
        elif event.type == SIGNING_KEY_ROTATED:
            rotated = SigningKeyRotated.FromString(event.data)
            self._jwks.replace(rotated.jwks, rotated.version)

    async def snapshot(self) -> bool:
        """Read all revocations and keys now, and say whether that was possible."""
        good = await self._read_revocations() and await self._jwks.refresh()
        if good:
            self._loaded.set()
        return good

    async def _run(self, stopping: asyncio.Event) -> None:
        retry_s = _FIRST_RETRY_S
        while not stopping.is_set():
            good = await self.snapshot()
            pause_s = _SWEEP_S if good else retry_s
            retry_s = _FIRST_RETRY_S if good else min(retry_s * 2, _MAX_RETRY_S)
            await first_of(stopping, self._clock, pause_s)

    async def _read_revocations(self) -> bool:
        request = ListRevocationsRequest()
        try:
            for _ in range(_MAX_PAGES):
                page = await self._identity.ListRevocations(request, timeout=_TIMEOUT_S)
                for revocation in page.revocations:
                    self._revoke(revocation)
                if not page.next_page_token:
                    self._deny_list.complete = True
                    self._read_at = self._clock.monotonic()
                    return True
                request = ListRevocationsRequest(page_token=page.next_page_token)
        except grpc.aio.AioRpcError as error:
            self._logger.warning("revocations not read", code=error.code().name, error=error.details())
            return False
        self._logger.error("more revocations than can be", pages=_MAX_PAGES)
        return False

    def _revoke(self, revocation: Revocation) -> None:
        self._deny_list.revoke(
            TenantId(UUID(revocation.tenant_id)),
            PrincipalName(revocation.principal),
            revoked_at=revocation.revoke_time.ToMicroseconds() / 1e6,
            expires_at=revocation.expire_time.ToMicroseconds() / 1e6,
        )


async def fetch_jwks(identity: IdentityServiceAsyncStub) -> tuple[str, int]:
    """Identity's public keys, RFC 7517 JSON, and their version; what a `Jwks` fetches with."""
    answer = await identity.GetJwks(GetJwksRequest(), timeout=_TIMEOUT_S)
    return answer.jwks, answer.version
