"""The settings that every stand-alone process has, and the files that they name."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import model_validator
from pydantic_settings import SettingsConfigDict

from tlsy.runtime.brokers import Brokers
from tlsy.runtime.settings import ServiceSettings, setting

CONTROL_DATABASE: Final = "tlsy_control"
CONNECTIONS_PER_DATABASE: Final = 8


class HostSettings(ServiceSettings):
    """Where a process finds what it does not own. Files, never values, for what is secret."""

    model_config = SettingsConfigDict(env_prefix="TLSY_")

    listen: str = setting(
        "127.0.0.1:7000", unit="", why="loopback unless someone decides otherwise", min_length=1
    )
    peers: dict[str, str] = setting(
        {}, unit="JSON", why="service name to gRPC target; a missing peer is never ready"
    )
    clusters: dict[str, str] = setting(
        {}, unit="JSON", why="cluster name to DSN without user; for one machine"
    )
    clusters_dir: Path | None = setting(
        None, unit="", why="a file per cluster, holding its DSN; a mounted secret that may grow while we run"
    )
    control_cluster: str = setting("control", unit="", why="the cluster that holds the control database")
    control_database: str = setting(CONTROL_DATABASE, unit="", why="its name on that cluster", min_length=1)
    connections_per_database: int = setting(
        CONNECTIONS_PER_DATABASE,
        unit="connections",
        why="all replicas share what the server allows",
        ge=1,
        le=32,
    )
    brokers: tuple[str, ...] = setting(
        ("127.0.0.1:9092",), unit="JSON", why="bootstrap servers of Kafka", min_length=1
    )
    brokers_ca_file: Path | None = setting(
        None, unit="", why="PEM; with it brokers are spoken to by TLS alone, and are signed by one of these"
    )
    brokers_cert_file: Path | None = setting(None, unit="", why="PEM; ours, where brokers ask for one")
    brokers_key_file: Path | None = setting(None, unit="", why="PEM, of that certificate; both or neither")
    brokers_user: str = setting("", unit="", why="who we are to brokers that ask (SCRAM-SHA-512)")
    brokers_password_file: Path | None = setting(None, unit="", why="of that user; both or neither")
    service_key_file: Path = setting(
        unit="", why="private JWK, ES256, of this service alone; tlsy service-key makes one"
    )
    trust_dir: Path = setting(
        unit="", why="a file <service>.json per service: the JWKS its tokens verify with"
    )
    tls_cert_file: Path | None = setting(None, unit="", why="without it the server listens in clear")
    tls_key_file: Path | None = setting(None, unit="", why="of the certificate; both or neither")
    tls_ca_file: Path | None = setting(
        None, unit="", why="with it callers must show a certificate signed by it"
    )
    clear_text: bool = setting(
        False, unit="", why="to do without TLS beyond this machine, where something else encrypts"
    )
    stop_grace_s: float = setting(
        20.0, unit="s", why="shorter than Kubernetes' 30 s before SIGKILL", ge=0, le=600
    )
    log_level: Literal["debug", "info", "warning", "error"] = setting(
        "info", unit="", why="debug logs every call"
    )
    trace_ratio: float = setting(0.01, unit="", why="at 1 tracing halves throughput", ge=0, le=1)
    otlp_endpoint: str | None = setting(
        None, unit="", why="where spans go; none leave the process without it"
    )
    metrics_port: int | None = setting(
        None, unit="", why="port of GET /metrics; not served without it", ge=1, le=65535
    )
    sentry_dsn: str | None = setting(None, unit="", why="where crash reports go; off without it", secret=True)

    @model_validator(mode="after")
    def _it_is_whole(self) -> Self:
        """Half a configuration would listen in clear, and nobody would notice."""
        problems = []
        both, pair = "TLSY_TLS_CERT_FILE and TLSY_TLS_KEY_FILE", (self.tls_cert_file, self.tls_key_file)
        if pair.count(None) == 1:
            problems.append(f"{both} go together")
        if None in pair and self.tls_ca_file is not None:
            problems.append(f"TLSY_TLS_CA_FILE needs {both}")
        if None in pair and not self.clear_text and not _stays_here(self.listen):
            problems.append(f"TLSY_LISTEN beyond this machine needs {both}, or TLSY_CLEAR_TEXT=true")
        if None in pair and not self.clear_text and not all(map(_stays_here, self.peers.values())):
            # Calls carry tokens, and what a tenant's events say.
            problems.append(f"TLSY_PEERS beyond this machine need {both}, or TLSY_CLEAR_TEXT=true")
        if self.brokers_ca_file is None and not self.clear_text and not all(map(_stays_here, self.brokers)):
            # Producers' records carry tokens.
            problems.append(
                "TLSY_BROKERS beyond this machine needs TLSY_BROKERS_CA_FILE, or TLSY_CLEAR_TEXT=true"
            )
        problems += read_brokers(self).problems(lambda field: f"TLSY_BROKERS_{field.upper()}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _stays_here(target: str) -> bool:
    """Whether only this machine can reach it."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    # Kafka's port may be left out.
    host = (target.rpartition(":")[0] or target).strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_brokers(settings: HostSettings) -> Brokers:
    """Where the brokers are, and the files that let us in, which are read whenever a client is made."""
    return Brokers(
        ",".join(settings.brokers),
        ca_file=settings.brokers_ca_file,
        cert_file=settings.brokers_cert_file,
        key_file=settings.brokers_key_file,
        user=settings.brokers_user,
        password_file=settings.brokers_password_file,
    )


def read_clusters(settings: HostSettings) -> Mapping[str, str]:
    """Cluster name to DSN: the environment's, then the files of `clusters_dir`, read at each look-up.

    Raises:
        OSError: it is not there: each look-up would take it for one that has no such cluster.
    """
    if settings.clusters_dir is None:
        return settings.clusters
    next(settings.clusters_dir.iterdir(), None)
    return _ClusterFiles(settings.clusters, settings.clusters_dir)


def read_trust(directory: Path) -> Mapping[str, str]:
    """Service name to JWKS, from every `<service>.json` in `directory`.

    Raises:
        OSError: it is not there, or a file in it cannot be read.
    """
    # Not glob: of a directory that is not there it says that nothing is in it.
    return {path.stem: read_text(path) for path in sorted(directory.iterdir()) if path.suffix == ".json"}


def read_text(path: Path) -> str:
    """What a file that the settings name holds.

    Raises:
        OSError: it cannot be read, or is no text; with its name.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeError:
        raise OSError(errno.EILSEQ, "is no text", str(path)) from None


class _ClusterFiles(Mapping[str, str]):
    def __init__(self, fixed: Mapping[str, str], directory: Path) -> None:
        self._fixed = fixed
        self._directory = directory

    def __getitem__(self, name: str) -> str:
        if name in self._fixed:
            return self._fixed[name]
        if "/" in name or name.startswith("."):
            raise KeyError(name)
        try:
            return (self._directory / name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        names = {path.name for path in self._directory.iterdir() if path.is_file() and path.name[0] != "."}
        return iter(sorted(names | self._fixed.keys()))

    def __len__(self) -> int:
        return sum(1 for _ in self)
