"""What relays and consumers export. Labels are services, groups and topics; never a tenant or a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry


class EventLogMetrics:
    """Made once per process and registry, shared by its relays and consumers.

    Attributes:
        tracer: begins the spans of what they send and apply; None: there are none.
    """

    __slots__ = (
        "applied",
        "backlog_age_s",
        "backlog_items",
        "broadcast_stale_s",
        "dead_letter_backlog_items",
        "dead_letter_backlog_s",
        "dead_letters",
        "dropped",
        "duplicates",
        "lag",
        "lag_s",
        "parked",
        "parked_s",
        "published",
        "relay_failures",
        "retries",
        "skipped",
        "stopped_partitions",
        "tracer",
    )

    def __init__(self, registry: CollectorRegistry, tracer: Tracer | None = None) -> None:
        self.tracer = tracer
        group = ("group",)
        self.backlog_items = Gauge(
            "tlsy_outbox_backlog_items", "Rows that wait to be published.", ("service",), registry=registry
        )
        self.backlog_age_s = Gauge(
            "tlsy_outbox_backlog_seconds", "Age of the oldest of them.", ("service",), registry=registry
        )
        self.published = Counter(
            "tlsy_outbox_published", "Rows published, by path.", ("service", "path"), registry=registry
        )
        self.relay_failures = Counter(
            "tlsy_relay_failures", "Sweeps that failed, by reason.", ("service", "reason"), registry=registry
        )
        self.lag = Gauge(
            "tlsy_consumer_lag_items", "Records without an effect yet.", ("group", "topic"), registry=registry
        )
        self.lag_s = Gauge(
            "tlsy_consumer_lag_seconds", "Age of the oldest of them.", ("group", "topic"), registry=registry
        )
        self.applied = Counter("tlsy_consumer_applied", "Deliveries committed.", group, registry=registry)
        self.duplicates = Counter(
            "tlsy_consumer_duplicates", "Deliveries dropped by the inbox.", group, registry=registry
        )
        self.skipped = Counter(
            "tlsy_consumer_skipped",
            "Records of types without a handler, or of deleted tenants.",
            group,
            registry=registry,
        )
        self.retries = Counter("tlsy_consumer_retries", "Deliveries tried again.", group, registry=registry)
        self.dead_letters = Counter(
            "tlsy_consumer_dead_letters", "Records refused for good.", group, registry=registry
        )
        self.dropped = Counter(
            "tlsy_consumer_dead_letters_dropped",
            "Records of outsiders refused beyond what is kept.",
            group,
            registry=registry,
        )
        self.parked = Gauge(
            "tlsy_consumer_parked_items", "Records that wait for a database.", group, registry=registry
        )
        self.parked_s = Gauge(
            "tlsy_consumer_parked_seconds", "Since the oldest is parked.", group, registry=registry
        )
        self.dead_letter_backlog_items = Gauge(
            "tlsy_dead_letter_backlog_items", "Letters that nobody is done with.", group, registry=registry
        )
        self.dead_letter_backlog_s = Gauge(
            "tlsy_dead_letter_backlog_seconds", "Age of the oldest of them.", group, registry=registry
        )
        self.stopped_partitions = Gauge(
            "tlsy_consumer_stopped_partitions", "Partitions stopped by a limit.", group, registry=registry
        )
        self.broadcast_stale_s = Gauge(
            "tlsy_broadcast_stale_seconds",
            "Since the tail was last known live.",
            ("name",),
            registry=registry,
        )
