"""What may be set about the rules engine."""

from __future__ import annotations

from pydantic_settings import SettingsConfigDict

from tlsy.runtime.settings import ServiceSettings, setting


class RulesEngineSettings(ServiceSettings):
    """Prefix TLSY_RULES_ENGINE_."""

    model_config = SettingsConfigDict(env_prefix="TLSY_RULES_ENGINE_")

    max_tenants_in_memory: int = setting(
        2_000, unit="", why="tenants whose engines are kept; the least recently used one goes", ge=1
    )
    max_versions_per_rule: int = setting(1_000, unit="", why="versions are kept for ever", ge=2, le=100_000)
    max_observed_fields: int = setting(
        2_000,
        unit="",
        why="fields of a tenant's events that are remembered; more would not fit into one answer",
        ge=100,
        le=4_000,
    )
    reopen_within_s: int = setting(
        300, unit="s", why="a rule that fires again so soon opens the same incident", ge=0, le=86_400
    )
    tick_s: float = setting(0.5, unit="s", why="between looks at the deadlines", gt=0, le=60)
    retry_s: float = setting(5.0, unit="s", why="before timers of a tenant that failed", gt=0, le=600)
