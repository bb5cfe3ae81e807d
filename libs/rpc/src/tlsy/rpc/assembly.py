"""What every service of the suite is made of, wired: an app.py adds its own handlers to it.

Databases under the service's own role, a catalogue of tenants and a deny-list in memory that one tail of the
log keeps fresh, transactions, verification of tokens, the relay of the service's outboxes, and the server.
Nothing here starts or connects; `supervisor` puts the parts in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from tlsy.contracts.events import TOPICS
from tlsy.contracts.identity.v1 import identity_pb2, identity_pb2_grpc
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2, tenant_registry_pb2_grpc
from tlsy.eventlog.broadcast import Broadcast
from tlsy.eventlog.errors import RetryableError
from tlsy.eventlog.kafka import KafkaInspector, KafkaProducer
from tlsy.eventlog.kafka_readers import KafkaTail
from tlsy.eventlog.metrics import EventLogMetrics
from tlsy.eventlog.outboxes import Outboxes
from tlsy.eventlog.ports import OutboxDatabase
from tlsy.eventlog.relay import Relay, RelaySettings
from tlsy.rpc.audit import AuditTrail
from tlsy.rpc.catalog import CatalogFeed
from tlsy.rpc.channel import dial
from tlsy.rpc.crossings import RecordedCrossings
from tlsy.rpc.denials import Denials
from tlsy.rpc.keys import Jwks, KeyInvalid
from tlsy.rpc.revocation_feed import RevocationFeed, fetch_jwks
from tlsy.rpc.revocations import DenyList
from tlsy.rpc.server import Served, build_server
from tlsy.rpc.tokens import MAX_LIFETIME_S, ServiceTokens, TokenVerifier
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.runtime.service import Part, Supervisor
from tlsy.runtime.settings import SettingsInvalid
from tlsy.tenancy.cluster import RELAY
from tlsy.tenancy.context import PLATFORM, IsolationMode, Placement, TenantState
from tlsy.tenancy.database import ClusterAddress, Databases, PoolLimits
from tlsy.tenancy.errors import TenantNotUnderstood, UnknownTenant
from tlsy.tenancy.unit_of_work import Tenancy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.rpc.denials import DenialSink, DeniedCalls
    from tlsy.runtime.host import Host
    from tlsy.runtime.ids import TenantId
    from tlsy.runtime.service import Readiness
    from tlsy.tenancy.catalog import Catalog

_REGISTRY: Final = tenant_registry_pb2.DESCRIPTOR.services_by_name["TenantRegistryService"]
_IDENTITY: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"]
_RELAY_LIMITS: Final = PoolLimits(total=8, per_database=3)
#: One for good in each database that notifies: the control one and the common one of each cluster. Beside the
#: relay's others, which these would leave nothing of; whom it does not suffice for is swept all the same.
_LISTENING_LIMITS: Final = PoolLimits(total=1_000, per_database=1)
_JITTER_BYTES: Final = 4
_NO_EPOCH: Final = 0


class ClusterDsns(Mapping[str, ClusterAddress]):
    """Cluster name to address under one role, from DSNs that say neither user nor database.

    "postgresql://:secret@host:port", with the directory of a unix socket as `?host=`; `sslmode=verify-full`
    with `sslrootcert=` demands TLS; `pooled=1` tells of a pooler in transaction mode, of at least two
    connections to the control database for the relay; `relay_password=` is the relay's, where it is another.
    Looked up anew each time.
    """

    def __init__(self, dsns: Mapping[str, str], role: str) -> None:
        self._dsns = dsns
        self._role = role

    def __getitem__(self, name: str) -> ClusterAddress:
        dsn = self._dsns[name]
        address = ClusterAddress.from_dsn(dsn, self._role)
        relay_password = parse_qs(urlsplit(dsn).query).get("relay_password")
        if self._role == RELAY and relay_password:
            address = replace(address, password=relay_password[-1])
        return address

    def __iter__(self) -> Iterator[str]:
        return iter(self._dsns)

    def __len__(self) -> int:
        return len(self._dsns)


#: States in which a tenant's database is there.
_PLACED: Final = frozenset({TenantState.ACTIVE, TenantState.SUSPENDED, TenantState.DELETING})


class _KnownDatabases:
    """Every database that the catalogue speaks of, and the control database."""

    def __init__(self, catalog: CatalogFeed, control: Placement, pooled: Callable[[str], bool]) -> None:
        self._catalog = catalog
        self._control = control
        self._pooled = pooled

    def databases(self) -> Sequence[OutboxDatabase]:
        control = OutboxDatabase(self._control, notifies=not self._pooled(self._control.cluster))
        found = {(self._control.cluster, self._control.database): control}
        for entry in self._catalog:
            place = entry.placement
            if entry.state in _PLACED:
                # As in `Tenancy.transaction`, which wakes this process where it does not notify.
                notifies = entry.mode is not IsolationMode.DEDICATED and not self._pooled(place.cluster)
                found.setdefault((place.cluster, place.database), OutboxDatabase(place, notifies=notifies))
        return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """The parts of one service; see the module's text."""

    host: Host
    package: str
    tenancy: Tenancy
    catalog: CatalogFeed
    verifier: TokenVerifier
    tokens: ServiceTokens
    audit: AuditTrail
    relay: Relay
    producer: KafkaProducer
    inspector: KafkaInspector
    metrics: EventLogMetrics
    control: Placement
    _databases: tuple[Databases, ...]
    _revocations: RevocationFeed
    _denials: Denials
    _broadcast: Broadcast

    @property
    def denials(self) -> DenialSink:
        """For refusals that only a handler sees: credentials that are not good."""
        return self._denials

    def jitter(self) -> float:
        """A number from 0 to 1."""
        return jitter_of(self.host)()

    def on_demand(
        self, name: str, topic: str, take: Callable[[CloudEvent], None], lost: Callable[[datetime], None]
    ) -> Broadcast:
        """A part that hands on a topic's events while somebody holds it, and reads nothing otherwise.

        When it cannot follow the topic any more it tells `lost` since when events may be missing.
        """

        async def no_snapshot() -> None:
            """What was before concerns nobody."""

        return Broadcast(
            name,
            tail=lambda: _ReadyTail(self.host.brokers, [topic], self.host.service),
            snapshot=no_snapshot,
            apply=take,
            clock=self.host.clock,
            jitter=self.jitter,
            metrics=self.metrics,
            on_demand=True,
            lost=lost,
        )

    def _platform_missing(self) -> str | None:
        """A readiness check: nobody can be somebody before the provider's own tenant is there."""
        known = any(
            entry.tenant_id == PLATFORM_TENANT_ID and entry.state is TenantState.ACTIVE
            for entry in self.catalog
        )
        return None if known else "the platform's own tenant is not active yet"

    def supervisor(
        self,
        served: Sequence[Served],
        parts: Sequence[Part] = (),
        *,
        workers: Sequence[Part] = (),
        checks: Sequence[Callable[[], str | None]] = (),
    ) -> Supervisor:
        """The service.

        Args:
            served: what it answers, unless its role is "worker".
            parts: components of every role.
            workers: components that role "api" leaves to others.
            checks: beside those of the catalogue and the revocations.
        """
        supervisor: Supervisor | None = None

        def ready() -> Readiness:
            if supervisor is None:
                raise RuntimeError("the server was started before its service was made")
            return supervisor.ready()

        server = build_server(
            self.host,
            served if self.host.answers_calls else (),
            verifier=self.verifier,
            catalog=self.catalog,
            denials=self._denials,
            crossings=RecordedCrossings(self.tenancy, self.audit),
            ready=ready,
        )
        closer = _Closer((*self._databases,), self.producer, self.inspector)
        own = (*parts, *(workers if self.host.works else ()))
        everything = [
            Part(closer),
            # One of them asks its own server in the registry and in identity: before it listens is too early,
            # and the channel would try again only after a while. While it drains they still hear of changes.
            Part(self.catalog, after=(server.name,)),
            Part(self._revocations, after=(server.name,)),
            Part(self._broadcast, needs=(closer.name,)),
            Part(self._denials, needs=(closer.name,)),
            Part(self.relay, needs=(closer.name,)),
            *(Part(part.component, needs=(closer.name, self.relay.name, *part.needs)) for part in own),
            Part(server, needs=(self.relay.name, *(part.component.name for part in own))),
        ]
        supervisor = Supervisor(
            self.host.service,
            everything,
            checks=(self.catalog.missing, self._platform_missing, self._revocations.missing, *checks),
        )
        return supervisor


class _Closer:
    """A component that does nothing until it is stopped, last of all: then it closes what the others used."""

    name = "connections"

    def __init__(
        self, databases: Sequence[Databases], producer: KafkaProducer, inspector: KafkaInspector
    ) -> None:
        self._databases = databases
        self._producer = producer
        self._inspector = inspector

    async def start(self) -> None:
        """Nothing to do: connections are made at first use."""

    async def stop(self, grace_s: float) -> None:  # noqa: ARG002  each close has a deadline of its own
        """Close everything."""
        await self._producer.stop()
        await self._inspector.stop()
        for databases in self._databases:
            await databases.close()

    async def wait(self) -> None:
        """Returns at once: it cannot break."""


def jitter_of(host: Host) -> Callable[[], float]:
    """Numbers from 0 to 1 from the host's randomness."""

    def jitter() -> float:
        return int.from_bytes(host.random(_JITTER_BYTES), "big") / float(1 << (8 * _JITTER_BYTES))

    return jitter


def assemble(
    host: Host,
    package: str,
    *,
    tailed: Mapping[str, Callable[[CloudEvent], None]] | None = None,
) -> Assembly:
    """Wires the parts of a service.

    Args:
        host: what the process lends.
        package: the service's package name, e.g. "rules_engine".
        tailed: topics of other services, or its own, that the service follows in memory, and what takes their
            events; beside those of the registry and identity.

    Raises:
        SettingsInvalid: a key, a certificate, or what is trusted is none, or a peer has no address.
    """
    clock = host.clock
    control = Placement(host.control_cluster, host.control_database, package)
    with _named("TLSY_SERVICE_KEY_FILE"):
        tokens = ServiceTokens(host.service, host.service_key, clock=clock, new_id=host.ids)
    with _named("TLSY_PEERS"), _named("TLSY_TLS_CERT_FILE", (OSError, ValueError)):
        registry = tenant_registry_pb2_grpc.TenantRegistryServiceStub(dial(host, _REGISTRY, tokens))
        identity = identity_pb2_grpc.IdentityServiceStub(dial(host, _IDENTITY, tokens))
    catalog = CatalogFeed(registry, clock, host.telemetry)
    deny_list = DenyList(clock)
    jwks = Jwks(lambda: fetch_jwks(identity), clock)
    revocations = RevocationFeed(identity, jwks, deny_list, clock, host.telemetry)
    with _named("TLSY_TRUST_DIR"):
        verifier = TokenVerifier(host.service, keys=jwks, trust=host.trust, deny_list=deny_list, clock=clock)
    limits = PoolLimits(per_database=host.connections_per_database)
    databases = Databases(ClusterDsns(host.clusters, f"tlsy_{package}"), limits, clock)
    relays = Databases(ClusterDsns(host.clusters, RELAY), _RELAY_LIMITS, clock)
    listening = Databases(ClusterDsns(host.clusters, RELAY), _LISTENING_LIMITS, clock)
    audit = AuditTrail(host.service, clock, host.ids)
    metrics = EventLogMetrics(host.telemetry.registry, host.telemetry.tracer("tlsy.eventlog"))
    producer = KafkaProducer(host.brokers, host.service)
    inspector = KafkaInspector(host.brokers, host.service)
    relay = Relay(
        host.service,
        TOPICS[host.service],
        outboxes=Outboxes(package, relays, control, listening=listening),
        producer=producer,
        inspector=inspector,
        source=_KnownDatabases(catalog, control, databases.pooled),
        clock=clock,
        jitter=jitter_of(host),
        metrics=metrics,
    )
    tenancy = Tenancy(package=package, databases=databases, catalog=catalog, control=control, wake=relay.wake)
    return Assembly(
        host=host,
        package=package,
        tenancy=tenancy,
        catalog=catalog,
        verifier=verifier,
        tokens=tokens,
        audit=audit,
        relay=relay,
        producer=producer,
        inspector=inspector,
        metrics=metrics,
        control=control,
        _databases=(databases, relays, listening),
        _revocations=revocations,
        _denials=Denials(clock, _denial_writer(tenancy, catalog, audit), registry=host.telemetry.registry),
        _broadcast=_broadcast(host, catalog, revocations, metrics, tailed or {}),
    )


@contextmanager
def _named(variable: str, kinds: tuple[type[Exception], ...] = (KeyInvalid, KeyError)) -> Iterator[None]:
    """A file or key that is none, or a peer without an address, as a fault of the setting it is from."""
    try:
        yield
    except kinds as error:
        why = error if isinstance(error, OSError) else error.args[0]
        raise SettingsInvalid((f"{variable}: {why}.",)) from error


class _ReadyTail(KafkaTail):
    """Makes the topics before it reads them: a service may start before those that publish to them."""

    async def open(self) -> None:
        """See `Tail.open`."""
        await self._inspector.ensure_topics(dict.fromkeys(self._topics, RelaySettings().partitions))
        await super().open()


def _broadcast(
    host: Host,
    catalog: CatalogFeed,
    revocations: RevocationFeed,
    metrics: EventLogMetrics,
    tailed: Mapping[str, Callable[[CloudEvent], None]],
) -> Broadcast:
    topics = sorted({TOPICS["tenant-registry"], TOPICS["identity"], *tailed})

    async def snapshot() -> None:
        if not (await catalog.snapshot() and await revocations.snapshot()):
            raise RetryableError("SNAPSHOT_FAILED", "the registry or identity did not answer")

    def apply(event: CloudEvent) -> None:
        catalog.on_event(event)
        revocations.on_event(event)
        follower = tailed.get(TOPICS.get(event.source, ""))
        if follower is not None:
            follower(event)

    def tail() -> _ReadyTail:
        # A revocation may be in the log before it is among those that identity lists: so far back that no
        # token is left which it could concern.
        since = {TOPICS["identity"]: host.clock.now() - timedelta(seconds=MAX_LIFETIME_S)}
        return _ReadyTail(host.brokers, topics, host.service, since=since)

    return Broadcast(
        "platform-events",
        tail=tail,
        snapshot=snapshot,
        apply=apply,
        clock=host.clock,
        jitter=jitter_of(host),
        metrics=metrics,
    )


def _denial_writer(
    tenancy: Tenancy, catalog: Catalog, audit: AuditTrail
) -> Callable[[Sequence[DeniedCalls]], Awaitable[None]]:
    """Denied calls go to the control database's outbox: a suspended tenant's denials are kept too."""

    def epoch_of(tenant_id: TenantId) -> int:
        try:
            return catalog.tenant(tenant_id).epoch
        except (UnknownTenant, TenantNotUnderstood):
            return _NO_EPOCH  # TENANT_UNKNOWN is a reason to be refused, and is audited too

    async def write(denied: Sequence[DeniedCalls]) -> None:
        async with tenancy.control(PLATFORM, write=True) as tx:
            for each in denied:
                tx.publish(audit.denied(each, epoch_of(each.tenant_id)))

    return write
