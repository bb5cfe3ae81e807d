"""The agent's configuration: one small YAML file.

Every problem of a file is reported at once, with the path of the member and what to write instead.
"""

from __future__ import annotations

import math
import os
import socket
import ssl
from dataclasses import dataclass, field
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


def _can_be_one(path: Path) -> Path:
    if b"\0" in os.fsencode(path):  # which raises by itself for what is no text
        raise ValueError("must have no NUL in it")
    return path


def _authorities(file: Path) -> Path:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError as error:
        raise ValueError(f"{file} holds no certificates in PEM") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror})") from error
    return file


AnyPath = Annotated[Path, AfterValidator(_can_be_one)]
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


@dataclass(slots=True)
class _Others:
    """What a probe must fit: the context of a file's validation, filled as it goes on.

    A list's own validator is not asked while one of its probes is wrong: it would not tell of the others.
    """

    interval_s: float = math.inf
    names: set[tuple[type, str]] = field(default_factory=set)


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


class _Probe(_Model):
    name: Name
    timeout_s: Seconds

    @field_validator("name")
    @classmethod
    def _is_its_own(cls, name: str, info: ValidationInfo) -> str:
        """Two of one name would be one subject to every rule, up and down by turns."""
        if isinstance(info.context, _Others):
            if (cls, name) in info.context.names:
                raise ValueError(f"another is called {name}, too; each needs a name of its own")
            info.context.names.add((cls, name))
        return name

    @field_validator("timeout_s")
    @classmethod
    def _in_time(cls, timeout_s: float, info: ValidationInfo) -> float:
        """All are read before they are due again: one that hangs would hold up what the others tell."""
        if isinstance(info.context, _Others) and timeout_s > info.context.interval_s:
            raise ValueError(f"must be at most interval_s, which is {info.context.interval_s:g}")
        return timeout_s


class TcpProbe(_Probe):
    """Whether a TCP port accepts a connection."""

    host: Host
    port: Port
    timeout_s: Seconds = 3.0


class HttpProbe(_Probe):
    """Whether an HTTP(S) address answers with a status that is expected."""

    #: In ASCII, as it goes over the wire. Events tell it without what is behind a "?".
    url: Annotated[str, Field(pattern=r"^https?://[!-~]+$"), AfterValidator(_address)]
    expect_status: Annotated[tuple[int, ...], Field(min_length=1)] = (200,)
    timeout_s: Seconds = 5.0
    ca_file: CaFile | None = None


class TlsProbe(_Probe):
    """How many days a server's certificate is still valid, whoever signed it."""

    host: Host
    port: Port = 443
    timeout_s: Seconds = 5.0


Probe = TypeVar("Probe", TcpProbe, HttpProbe, TlsProbe)


class BufferSettings(_Model):
    """Where events wait until the server has them."""

    directory: AnyPath
    #: When it is full the agent stops collecting and says so; what is kept is never thrown away.
    max_bytes: Annotated[int, Field(ge=1_048_576)] = 268_435_456


class Settings(_Model):
    """The whole file."""

    endpoints: Endpoints
    #: Holds the API key alone; readable by the agent's user only.
    api_key_file: AnyPath
    buffer: BufferSettings
    source: Annotated[str, Field(min_length=1), _bytes(MAX_SOURCE_BYTES)] = Field(
        default_factory=lambda: f"agent/{socket.gethostname()}"
    )
    site: Annotated[str, _bytes(MAX_SITE_BYTES)] = ""
    labels: dict[LabelKey, Annotated[str, _bytes(MAX_LABEL_VALUE_BYTES)]] = Field(
        default_factory=dict, max_length=20
    )
    #: Between two readings of everything. Before the probes, which are held against it.
    interval_s: Annotated[float, Field(ge=0.1, le=3_600, validate_default=True)] = 10.0
    host: HostSettings = HostSettings()
    tcp: tuple[TcpProbe, ...] = Field(default=(), max_length=200)
    http: tuple[HttpProbe, ...] = Field(default=(), max_length=200)
    tls: tuple[TlsProbe, ...] = Field(default=(), max_length=200)
    #: At the end, to deliver what waits; what is left then is delivered after the next start.
    stop_grace_s: Annotated[float, Field(ge=0, le=300)] = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("interval_s")
    @classmethod
    def _told_to_probes(cls, interval_s: float, info: ValidationInfo) -> float:
        if isinstance(info.context, _Others):
            info.context.interval_s = interval_s
        return interval_s

    @field_validator("tcp", "http", "tls")
    @classmethod
    def _given_no_time(cls, probes: tuple[Probe, ...], info: ValidationInfo) -> tuple[Probe, ...]:
        """Nobody who asks for readings more often than a default lasts has to say that, too."""
        interval_s = info.data.get("interval_s", math.inf)
        return tuple(
            probe.model_copy(update={"timeout_s": min(probe.timeout_s, interval_s)}) for probe in probes
        )


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
    except RecursionError as error:
        raise SettingsError(f"{path} is nested more deeply than it can be read") from error
    try:
        return Settings.model_validate(document if document is not None else {}, context=_Others())
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, p['loc'])) or '(file)'}: {p['msg']}" for p in error.errors()]
        raise SettingsError("\n".join([f"{path} has {len(lines)} problem(s):", *lines])) from error
