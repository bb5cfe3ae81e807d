"""The agent's configuration: one small YAML file.

Every problem of a file is reported at once, with the path of the member and what to write instead.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from tlsy.agent.domain.readings import (
    MAX_LABEL_KEY_BYTES,
    MAX_LABEL_VALUE_BYTES,
    MAX_SITE_BYTES,
    MAX_SOURCE_BYTES,
)


def _bytes(most: int) -> AfterValidator:
    """The limits of ingestion, which counts bytes: what the file may hold, no event is refused for."""

    def check(text: str) -> str:
        if "\0" in text:
            raise ValueError("must have no NUL in it")
        if len(text.encode()) > most:
            raise ValueError(f"must be at most {most} bytes of UTF-8")
        return text

    return AfterValidator(check)


def _address(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("must hold no user and password: what is probed is told to the server")
    if not parts.hostname or parts.port == 0:  # a port that is no number raises by itself
        raise ValueError("needs a host, and a port from 1 to 65535 if it names one")
    return url


def _authorities(file: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as error:
        raise ValueError(f"{file} holds no certificates in PEM") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from error
    return file


#: PEM file of the authorities to trust instead of the system's.
CaFile = Annotated[Path, AfterValidator(_authorities)]
Seconds = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Host = Annotated[str, Field(min_length=1)]
LabelKey = Annotated[str, Field(min_length=1), _bytes(MAX_LABEL_KEY_BYTES)]
Port = Annotated[int, Field(ge=1, le=65_535)]


class SettingsError(Exception):
    """A configuration that cannot be used; the message lists everything that is wrong with it."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerTls(_Model):
    """How the servers' certificates are checked; without it calls are in clear text."""

    ca_file: CaFile | None = None


class Endpoints(_Model):
    """Where the services listen; "host:port" or "unix:/path". One edge address may stand for both."""

    identity: Annotated[str, Field(min_length=1)]
    ingestion: Annotated[str, Field(min_length=1)]
    tls: ServerTls | None = None


class HostSettings(_Model):
    """What is read from this host."""

    cpu: bool = True
    memory: bool = True
    load: bool = True
    disks: bool = True
    network: bool = True
    #: Names of programs that should run; each is counted, 0 means that it does not.
    processes: tuple[Name, ...] = Field(default=(), max_length=50)


class TcpProbe(_Model):
    """Whether a TCP port accepts a connection."""

    name: Name
    host: Host
    port: Port
    timeout_s: Seconds = 3.0


class HttpProbe(_Model):
    """Whether an HTTP(S) address answers with a status that is expected."""

    name: Name
    #: In ASCII, as it goes over the wire. Events tell it without what is behind a "?".
    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$"), AfterValidator(_address)]
    expect_status: Annotated[tuple[int, ...], Field(min_length=1)] = (200,)
    timeout_s: Seconds = 5.0
    ca_file: CaFile | None = None


class TlsProbe(_Model):
    """How many days a server's certificate is still valid, whoever signed it."""

    name: Name
    host: Host
    port: Port = 443
    timeout_s: Seconds = 5.0


Probe = TypeVar("Probe", TcpProbe, HttpProbe, TlsProbe)


def _named_apart(probes: tuple[Probe, ...]) -> tuple[Probe, ...]:
    """Two of one name would be one subject to every rule, up and down by turns."""
    names = Counter(probe.name for probe in probes)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise ValueError(f"each needs a name of its own; more than one is called {', '.join(twice)}")
    return probes


class BufferSettings(_Model):
    """Where events wait until the server has them."""

    directory: Path
    #: When it is full the agent stops collecting and says so; what is kept is never thrown away.
    max_bytes: Annotated[int, Field(ge=1_048_576)] = 268_435_456


class Settings(_Model):
    """The whole file."""

    endpoints: Endpoints
    #: Holds the API key alone; readable by the agent's user only.
    api_key_file: Path
    buffer: BufferSettings
    source: Annotated[str, Field(min_length=1), _bytes(MAX_SOURCE_BYTES)] = Field(
        default_factory=lambda: f"agent/{socket.gethostname()}"
    )
    site: Annotated[str, _bytes(MAX_SITE_BYTES)] = ""
    labels: dict[LabelKey, Annotated[str, _bytes(MAX_LABEL_VALUE_BYTES)]] = Field(
        default_factory=dict, max_length=20
    )
    #: Between two readings of everything.
    interval_s: Annotated[float, Field(ge=0.1, le=3_600)] = 10.0
    host: HostSettings = HostSettings()
    tcp: Annotated[tuple[TcpProbe, ...], AfterValidator(_named_apart)] = Field(default=(), max_length=200)
    http: Annotated[tuple[HttpProbe, ...], AfterValidator(_named_apart)] = Field(default=(), max_length=200)
    tls: Annotated[tuple[TlsProbe, ...], AfterValidator(_named_apart)] = Field(default=(), max_length=200)
    #: At the end, to deliver what waits; what is left then is delivered after the next start.
    stop_grace_s: Annotated[float, Field(ge=0, le=300)] = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("tcp", "http", "tls")
    @classmethod
    def _in_time(cls, probes: tuple[Probe, ...], info: ValidationInfo) -> tuple[Probe, ...]:
        """All are read before they are due again: one that hangs would hold up what the others tell.

        Nobody who asks for readings more often than a default lasts has to say that, too.
        """
        interval_s = info.data.get("interval_s", math.inf)
        taken = tuple(
            probe
            if "timeout_s" in probe.model_fields_set or probe.timeout_s <= interval_s
            else probe.model_copy(update={"timeout_s": interval_s})
            for probe in probes
        )
        late = [
            f"{info.field_name}.{number}.timeout_s"
            for number, probe in enumerate(taken)
            if probe.timeout_s > interval_s
        ]
        if late:
            raise ValueError(f"must be at most interval_s, which is {interval_s:g}: {', '.join(late)}")
        return taken


class _Loader(yaml.SafeLoader):
    """Refuses a member that is there twice, instead of dropping the first.

    And tells where something stands that only looks like a date or a number.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - the base's
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:
            kind = node.tag.rpartition(":")[2]
            problem = f"{node.value} is no {kind}; if it is a text, put it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error

    def construct_yaml_map(self, node: yaml.MappingNode) -> Any:
        names: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in names:
                raise yaml.MarkedYAMLError(problem=f"{name} is there twice", problem_mark=key.start_mark)
            names.add(name)
        return super().construct_yaml_map(node)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_yaml_map)


def load(path: Path) -> Settings:
    """Reads a configuration file.

    Raises:
        SettingsError: the file is missing, not YAML, or has members that are wrong; all of them are named.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    try:
        return Settings.model_validate(document if document is not None else {})
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, p['loc'])) or '(file)'}: {p['msg']}" for p in error.errors()]
        raise SettingsError("\n".join([f"{path} has {len(lines)} problem(s):", *lines])) from error
