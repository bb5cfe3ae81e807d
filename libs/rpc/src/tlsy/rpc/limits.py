"""How much one tenant, and all together, may ask of a server."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tlsy.rpc.errors import ResourceExhausted
from tlsy.runtime.ids import TenantId

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlsy.rpc.tokens import TokenClaims
    from tlsy.runtime.clock import Clock
    from tlsy.tenancy.catalog import TenantEntry

#: The entitlement that sets a tenant's rate; 0: unlimited.
REQUESTS_PER_S: Final = "requests_per_s"
_MAX_TENANTS: Final = 10_000
_BURST_S: Final = 2.0
#: No tenant's id: whose the calls without a token are.
_ANYBODY: Final = TenantId(UUID(int=0))


class RequestRates:
    """A token bucket per tenant: its entitlement a second, two seconds' worth at once.

    Per replica: with N replicas a tenant may have N times as much.
    """

    __slots__ = ("_buckets", "_clock", "_default_per_s")

    def __init__(self, clock: Clock, default_per_s: int) -> None:
        self._clock = clock
        self._default_per_s = default_per_s
        self._buckets: OrderedDict[TenantId, tuple[float, float]] = OrderedDict()

    def take(self, tenant: TenantEntry) -> None:
        """Count one request.

        Raises:
            ResourceExhausted: reason RATE_LIMITED, with when there is room again.
        """
        rate = tenant.entitlements.get(REQUESTS_PER_S, self._default_per_s)
        if rate <= 0:
            return
        now = self._clock.monotonic()
        left, then = self._buckets.get(tenant.tenant_id, (rate * _BURST_S, now))
        left = min(rate * _BURST_S, left + (now - then) * rate)
        if left < 1.0:
            raise ResourceExhausted(
                "RATE_LIMITED",
                f"More than {rate} requests a second; wait and send again.",
                metadata={"limit": str(rate), "entitlement": REQUESTS_PER_S},
                retry_after_s=(1.0 - left) / rate,
            )
        self._buckets[tenant.tenant_id] = (left - 1.0, now)
        self._buckets.move_to_end(tenant.tenant_id)
        if len(self._buckets) > _MAX_TENANTS:
            self._buckets.popitem(last=False)


class InFlight:
    """How many calls and streams are being answered; the next one over a bound is refused at once."""

    __slots__ = (
        "_calls_of",
        "_max_calls",
        "_max_calls_of_tenant",
        "_max_open_streams",
        "_max_public_calls",
        "_max_streams",
        "_open_streams",
        "_streams_of",
        "calls",
        "streams",
    )

    def __init__(
        self,
        max_calls: int,
        max_calls_of_tenant: int,
        max_public_calls: int,
        max_streams_of_tenant: int,
        max_open_streams: int,
    ) -> None:
        self._max_calls = max_calls
        self._max_public_calls = max_public_calls
        self._max_calls_of_tenant = max_calls_of_tenant
        self._max_streams = max_streams_of_tenant
        self._max_open_streams = max_open_streams
        self._open_streams = 0
        self._calls_of: dict[TenantId, int] = {}
        self._streams_of: dict[TenantId, int] = {}
        self.calls = 0
        self.streams = 0

    def enter_call(self) -> None:
        """Count one call in; `leave_call` counts it out.

        Raises:
            ResourceExhausted: reason SERVER_BUSY.
        """
        if self.calls >= self._max_calls:
            raise ResourceExhausted("SERVER_BUSY", "Too many calls at once; send again.", retry_after_s=0.5)
        self.calls += 1

    def hold_share(self, claims: TokenClaims | None) -> TenantId | None:
        """Count a call that has entered for its tenant too; returns what `leave_call` needs to know.

        Those without a token are anybody's, and counted together.

        Raises:
            ResourceExhausted: reasons TENANT_BUSY, PUBLIC_BUSY.
        """
        if claims is None:
            if not _take(self._calls_of, _ANYBODY, self._max_public_calls):
                text = f"At most {self._max_public_calls} calls without a token at once; send again."
                raise ResourceExhausted("PUBLIC_BUSY", text, retry_after_s=0.5)
            return _ANYBODY
        tenant_id = _counted_for(claims)
        if tenant_id is not None and not _take(self._calls_of, tenant_id, self._max_calls_of_tenant):
            text = f"At most {self._max_calls_of_tenant} calls of one tenant at once; send again."
            raise ResourceExhausted("TENANT_BUSY", text, retry_after_s=0.5)
        return tenant_id

    def leave_call(self, held: TenantId | None) -> None:
        """Count one call out."""
        self.calls -= 1
        _give_back(self._calls_of, held)

    def enter_stream(self, claims: TokenClaims | None) -> TenantId | None:
        """Count one stream of a tenant in; returns what `leave_stream`, which counts it out, needs to know.

        Raises:
            ResourceExhausted: reason TOO_MANY_STREAMS.
        """
        tenant_id = _counted_for(claims)
        if tenant_id is not None and not _take(self._streams_of, tenant_id, self._max_streams):
            text = f"At most {self._max_streams} streams of one tenant at once; close one."
            raise ResourceExhausted("TOO_MANY_STREAMS", text, retry_after_s=5.0)
        self.streams += 1
        return tenant_id

    @contextmanager
    def open_stream(self) -> Iterator[None]:
        """For the block, count one stream that asks for no token, and so is nobody's.

        Raises:
            ResourceExhausted: reason TOO_MANY_STREAMS.
        """
        if self._open_streams >= self._max_open_streams:
            text = "Too many streams of health and reflection at once."
            raise ResourceExhausted("TOO_MANY_STREAMS", text, retry_after_s=5.0)
        self._open_streams += 1
        try:
            yield
        finally:
            self._open_streams -= 1

    def leave_stream(self, held: TenantId | None) -> None:
        """Count one stream out."""
        self.streams -= 1
        _give_back(self._streams_of, held)


def _counted_for(claims: TokenClaims | None) -> TenantId | None:
    """Services answer for many tenants, so only tenants' own calls and streams are counted."""
    return None if claims is None or claims.of_service else claims.tenant_id


def _take(counts: dict[TenantId, int], tenant_id: TenantId, most: int) -> bool:
    held = counts.get(tenant_id, 0)
    if held >= most:
        return False
    counts[tenant_id] = held + 1
    return True


def _give_back(counts: dict[TenantId, int], tenant_id: TenantId | None) -> None:
    if tenant_id is None:
        return
    counts[tenant_id] -= 1
    if not counts[tenant_id]:
        del counts[tenant_id]
