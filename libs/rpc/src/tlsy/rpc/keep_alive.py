"""How either end of a connection notices that the other one is gone, though nobody said so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAlive:
    """Pings of a connection, for either end; clients ping only while a call or a stream is open.

    Attributes:
        every_s: after so long without a word from the other end; gRPC's clients wait a second at least.
        timeout_s: an end that has not answered by then is gone, and with it every call of the connection.
        least_s: a server hangs up on who pings more often than that, again and again.
    """

    every_s: float = 30.0
    timeout_s: float = 10.0
    least_s: float = 10.0

    def of_client(self) -> tuple[tuple[str, int], ...]:
        """Options of a channel."""
        return (
            ("grpc.keepalive_time_ms", round(self.every_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(self.timeout_s * 1000)),
            # The line above alone changes nothing: an answer is waited for for a minute.
            ("grpc.http2.ping_timeout_ms", round(self.timeout_s * 1000)),
            # A quiet stream would be pinged twice, and then once a minute.
            ("grpc.http2.max_pings_without_data", 0),
        )

    def of_server(self) -> tuple[tuple[str, int], ...]:
        """Options of a server."""
        return (
            *self.of_client(),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", round(self.least_s * 1000)),
        )
