"""What may be set about a suite on one machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from tlsy.runtime.logging import LogFormat
from tlsy.runtime.settings import ServiceSettings, setting

#: Where the tenants of the mode SHARED are, on this machine's one cluster.
COMMON_DATABASE: Final = "tlsy_tenants"


def default_data_dir() -> Path:
    """Below the user's own data; for root below /var/lib, because PostgreSQL's user cannot enter /root."""
    if os.geteuid() == 0:
        return Path("/var/lib/tlsy/suite")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tlsy"


class EmbeddedSettings(ServiceSettings):
    """Prefix TLSY_EMBEDDED_."""

    model_config = SettingsConfigDict(env_prefix="TLSY_EMBEDDED_")

    data_dir: Path = setting(
        default_data_dir(), unit="", why="databases, keys and the platform's API key; back it up as a whole"
    )
    role: Literal["api", "worker", "all"] = setting(
        "all", unit="", why="one process does everything; a part of it is for measuring"
    )
    kafka_port: int = setting(
        0, unit="", why="of the broker on loopback; 0 takes a free one, told in run.json", ge=0, le=65535
    )
    country: str = setting("fr", unit="", why="ISO 3166-1; where this machine stands", pattern="^[a-z]{2}$")
    country_name: str = setting("France", unit="", why="what people read for that country", min_length=1)
    admin_email: str = setting("", unit="", why="the platform's first administrator; empty: only an API key")
    admin_password: SecretStr = setting(
        SecretStr(""), unit="", why="of that administrator, at the first log-in", secret=True
    )
    argon2_memory_kib: int = setting(19_456, unit="KiB", why="OWASP's least for two passes", ge=8)
    trace_ratio: float = setting(0.0, unit="", why="spans are dropped without an endpoint", ge=0, le=1)
    otlp_endpoint: str | None = setting(None, unit="", why="where spans go")
    metrics_port: int | None = setting(None, unit="", why="port of GET /metrics", ge=1, le=65535)
    sentry_dsn: str | None = setting(None, unit="", why="where crash reports go; off without it", secret=True)
    log_level: Literal["debug", "info", "warning", "error"] | None = setting(
        None, unit="", why="left out: info as JSON; as text warning, since a person is told of the rest"
    )
    log_format: LogFormat = setting(
        "auto", unit="", why="auto: text on stderr where stdout is a terminal, else JSON on stdout"
    )
    stop_grace_s: float = setting(20.0, unit="s", why="for all services together", ge=0, le=600)
