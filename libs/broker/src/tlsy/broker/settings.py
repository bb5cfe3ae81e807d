from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple


class Address(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        """The form clients take as bootstrap server."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Every limit of one broker; raises ValueError naming all values that cannot work."""

    host: str = "127.0.0.1"
    """Interface to listen on; the protocol has no authentication here, so it stays on loopback."""
    port: int = 0
    """0 lets the system choose a free port."""
    auto_create_topics: bool = False
    """Whether asking for an unknown topic creates it (if the client asks for that, too)."""
    default_partitions: int = 1
    """Partitions of a topic that is created without a count."""

    max_message_bytes: int = 1_048_588
    """Largest record batch; the default is Apache Kafka's."""
    max_request_bytes: int = 16 * 1024 * 1024
    """Largest produce request: one batch for each of many partitions."""
    max_buffered_bytes: int = 64 * 1024 * 1024
    """Memory of all connections' requests that have not arrived wholly; beyond it large ones take turns."""
    max_control_request_bytes: int = 512 * 1024
    """Largest request of any other kind; small because such a request decodes to many objects."""
    max_fetch_bytes: int = 32 * 1024 * 1024
    """Most bytes of records in one fetch response, whatever the client asks for."""
    max_fetch_wait_s: float = 30.0
    """Longest long poll, whatever the client asks for."""

    max_connections: int = 512
    """Connections beyond this are closed at once."""
    idle_timeout_s: float = 600.0
    """A connection without a request for this long is closed; the default is Apache Kafka's."""
    frame_timeout_s: float = 30.0
    """A request that has begun must have arrived wholly after this time."""
    write_timeout_s: float = 30.0
    """A client that does not read its responses for this long is disconnected."""

    max_partition_bytes: int = 64 * 1024 * 1024
    """Memory of one partition's records; beyond it the oldest are dropped."""
    max_total_bytes: int = 256 * 1024 * 1024
    """Memory of all records; beyond it the largest partition drops its oldest."""
    max_topics: int = 1_000
    """A creation beyond it is refused with POLICY_VIOLATION."""
    max_partitions: int = 10_000
    """Partitions of all topics; a creation beyond it is refused with POLICY_VIOLATION."""
    max_producers_per_partition: int = 1_000
    """Idempotent producers remembered per partition; the one silent for longest is forgotten."""

    max_groups: int = 1_000
    """A new group beyond it is refused with GROUP_MAX_SIZE_REACHED."""
    max_group_members: int = 250
    """A new member beyond it is refused with GROUP_MAX_SIZE_REACHED."""
    max_offset_metadata_bytes: int = 4_096
    """Longest note stored with a committed offset; the default is Apache Kafka's."""
    min_session_timeout_s: float = 1.0
    """Shortest session timeout a member may ask for (below: INVALID_SESSION_TIMEOUT)."""
    max_session_timeout_s: float = 1_800.0
    """Longest session timeout a member may ask for (above: INVALID_SESSION_TIMEOUT)."""
    max_rebalance_timeout_s: float = 1_800.0
    """Longest time a rebalance waits for members, whatever they ask for."""

    def __post_init__(self) -> None:
        problems = [
            f"{field.name} must be positive"
            for field in fields(self)
            if field.name not in {"host", "port", "auto_create_topics"} and getattr(self, field.name) <= 0
        ]
        if not 0 <= self.port <= 65_535:  # noqa: PLR2004 - the range of TCP ports
            problems.append("port must be in 0..65535")
        if self.max_message_bytes > self.max_request_bytes:
            problems.append("max_message_bytes must not exceed max_request_bytes")
        if 2 * self.max_message_bytes > self.max_partition_bytes:
            problems.append("max_partition_bytes must hold two batches of max_message_bytes")
        if self.max_partition_bytes > self.max_total_bytes:
            problems.append("max_partition_bytes must not exceed max_total_bytes")
        if self.min_session_timeout_s > self.max_session_timeout_s:
            problems.append("min_session_timeout_s must not exceed max_session_timeout_s")
        if problems:
            raise ValueError("; ".join(problems))
