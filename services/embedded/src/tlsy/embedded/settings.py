"""What may be set about a suite on one machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from tlsy.identity.settings import IdentitySettings
from tlsy.ingestion.settings import IngestionSettings
from tlsy.rules_engine.settings import RulesEngineSettings
from tlsy.runtime.logging import LogFormat
from tlsy.runtime.settings import ServiceSettings, SettingsInvalid, load, setting, try_load
from tlsy.tenant_registry.settings import TenantRegistrySettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tlsy.embedded.adapters.data_directory import DataDirectory

#: This machine's one cluster.
CLUSTER: Final = "local"
#: Where the tenants of the mode SHARED are, on this machine's one cluster.
COMMON_DATABASE: Final = "tlsy_tenants"


def default_data_dir(uid: int, environ: Mapping[str, str], home: Callable[[], Path]) -> Path:
    """Below the user's own data; for root below /var/lib, because PostgreSQL's user cannot enter /root.

    Who has no home, as in a container that does not know its user, works where the program was started.
    """
    if uid == 0:
        return Path("/var/lib/tlsy/suite")
    try:
        return Path(environ.get("XDG_DATA_HOME") or home() / ".local" / "share") / "tlsy"
    except RuntimeError:
        return Path("tlsy")


class EmbeddedSettings(ServiceSettings):
    """Prefix TLSY_EMBEDDED_."""

    model_config = SettingsConfigDict(env_prefix="TLSY_EMBEDDED_")

    data_dir: Path = setting(
        default_data_dir(os.geteuid(), os.environ, Path.home),
        unit="",
        why="databases, keys and the platform's API key; back it up as a whole",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsOfServices:
    """What is set of each service of the suite."""

    tenant_registry: TenantRegistrySettings
    identity: IdentitySettings
    ingestion: IngestionSettings
    rules_engine: RulesEngineSettings


def load_own(problems: list[str], **given: Any) -> EmbeddedSettings:
    """The suite's own settings, `given` first.

    What is wrong is added to `problems`, and has its default here: the services' settings, which depend on
    these, are judged all the same.
    """
    try:
        return load(EmbeddedSettings, **given)
    except SettingsInvalid as error:
        problems.extend(error.problems)
        fields = EmbeddedSettings.model_fields
        defaults = {name: fields[name].get_default(call_default_factory=True) for name in error.fields}
        return load(EmbeddedSettings, **{**given, **defaults})


def load_services(
    problems: list[str], settings: EmbeddedSettings, directory: DataDirectory
) -> SettingsOfServices | None:
    """The services' settings; None if some are wrong, and each is added to `problems`.

    What the suite sets of a service is told by the name of its own variable.
    """
    tenant_registry = try_load(
        TenantRegistrySettings,
        problems,
        set_by={
            "platform_country": "TLSY_EMBEDDED_COUNTRY",
            "platform_country_name": "TLSY_EMBEDDED_COUNTRY_NAME",
        },
        platform_country=settings.country,
        platform_country_name=settings.country_name,
        first_cluster=CLUSTER,
    )
    identity = try_load(
        IdentitySettings,
        problems,
        set_by={
            "bootstrap_admin_email": "TLSY_EMBEDDED_ADMIN_EMAIL",
            "bootstrap_admin_password": "TLSY_EMBEDDED_ADMIN_PASSWORD",
            "argon2_memory_kib": "TLSY_EMBEDDED_ARGON2_MEMORY_KIB",
        },
        keys_file=directory.identity_keys_file,
        bootstrap_admin_email=settings.admin_email,
        bootstrap_admin_password=settings.admin_password,
        bootstrap_key_file=directory.platform_key_file,
        argon2_memory_kib=settings.argon2_memory_kib,
    )
    ingestion = try_load(IngestionSettings, problems)
    rules_engine = try_load(RulesEngineSettings, problems)
    if tenant_registry is None or identity is None or ingestion is None or rules_engine is None:
        return None
    return SettingsOfServices(
        tenant_registry=tenant_registry, identity=identity, ingestion=ingestion, rules_engine=rules_engine
    )
