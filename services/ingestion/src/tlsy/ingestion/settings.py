"""What may be set about ingestion."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from tlsy.runtime.settings import ServiceSettings, setting


class IngestionSettings(ServiceSettings):
    """Prefix TLSY_INGESTION_."""

    model_config = SettingsConfigDict(env_prefix="TLSY_INGESTION_")

    lateness_h: int = setting(
        72, unit="h", why="how late an event may come; partitions of four days back are made", ge=1, le=72
    )
    shard: int = setting(
        0, unit="", why="replicas with different ones do not wait for each other's counters", ge=0, le=1023
    )
    ingest_partitions: int = setting(
        12, unit="", why="of the producers' topic, where it is made by us", ge=1, le=200
    )
    audit_every_s: float = setting(
        20.0, unit="s", why="how often finished minutes are told to the audit log", gt=0, le=3600
    )
