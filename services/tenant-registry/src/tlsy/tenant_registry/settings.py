"""What may be set about the tenant registry."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from tlsy.runtime.settings import ServiceSettings, setting
from tlsy.tenancy.executor import MAX_RELATIONS


class TenantRegistrySettings(ServiceSettings):
    """Prefix TLSY_TENANT_REGISTRY_."""

    model_config = SettingsConfigDict(env_prefix="TLSY_TENANT_REGISTRY_")

    base_domain: str = setting(
        "tlsy.localhost",
        unit="",
        why="tenants' sub-domains are below it; *.localhost needs no DNS",
        max_length=200,
    )
    shared_database: str = setting(
        "tlsy_tenants",
        unit="",
        why="the common tenant database of every cluster, as migrations make it",
        pattern="^[a-z][a-z0-9_]{0,62}$",
    )
    retention_days: int = setting(
        30,
        unit="days",
        why="between DeleteTenant and erasure; time to export and to think again",
        ge=0,
        le=3650,
    )
    platform_country: str = setting(
        "fr",
        unit="",
        why="ISO 3166-1; of the provider's own tenant and the first cluster",
        pattern="^[a-z]{2}$",
    )
    platform_country_name: str = setting(
        "France", unit="", why="what people read for that country", min_length=1, max_length=200
    )
    first_cluster: str = setting(
        "local", unit="", why="registered at the first start; a cluster of the host's settings", min_length=1
    )
    first_cluster_region: str = setting("local", unit="", why="one machine has one region", min_length=1)
    in_flight: int = setting(
        4,
        unit="operations",
        why="more only wait for the same disks and locks; a fence has one place more",
        ge=1,
        le=64,
    )
    attempts: int = setting(
        8,
        unit="attempts",
        why="about a minute and a half of trying, then FAILED with the reason",
        ge=1,
        le=100,
    )
    first_delay_s: float = setting(
        0.5, unit="s", why="before the second attempt; doubled each time", gt=0, le=60
    )
    max_delay_s: float = setting(30.0, unit="s", why="between two attempts at most", gt=0, le=3600)
    attempt_timeout_s: float = setting(
        300.0, unit="s", why="erasing a large tenant takes minutes; the next attempt goes on", gt=0, le=86400
    )
    lease_s: float = setting(
        6.0, unit="s", why="after a crash another provisioner takes over within it", ge=0.5, le=600
    )
    max_relations: int = setting(
        MAX_RELATIONS,
        unit="tables and indexes",
        why="a common database with more takes no further SCHEMA tenant; each has about 200",
        ge=1_000,
        le=10_000_000,
    )
    upkeep_s: float = setting(
        300.0,
        unit="s",
        why="between rounds of partitions and retention; partitions are days ahead",
        gt=0,
        le=86400,
    )
    upgrade_s: float = setting(
        60.0,
        unit="s",
        why="between attempts at tenants whose tables are behind this version's",
        gt=0,
        le=86400,
    )
    upgrade_percent: int = setting(
        100,
        unit="%",
        why="of tenants with tables of their own; raise it ring by ring after an upgrade, 0 pauses",
        ge=0,
        le=100,
    )
    probe_s: float = setting(
        5.0, unit="s", why="between probes of clusters that did not answer", gt=0, le=3600
    )
    keep_operations_days: int = setting(
        30, unit="days", why="how long ended operations can be read", ge=1, le=3650
    )
