"""Settings of a process: read once from the environment, frozen, every problem reported at once.

A setting says its unit, its default and why that default is right:

    class IngestionSettings(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix="TLSY_INGESTION_")
        batch_max: int = setting(10_000, unit="events", why="what a client may send in one call", ge=1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import Field, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.config import JsonDict
    from pydantic.fields import FieldInfo
    from pydantic_settings import PydanticBaseSettingsSource


class ServiceSettings(BaseSettings):
    """What every settings class shares: frozen, whole. Subclasses set `env_prefix`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment alone: to ask for files that nobody names takes as long again."""
        return init_settings, _Environment(settings_cls)


class _Environment(EnvSettingsSource):
    """What is no JSON where JSON is wanted is told with all the rest, as a text that is in its place."""

    def prepare_field_value(
        self,
        field_name: str,
        field: FieldInfo,
        value: Any,
        value_is_complex: bool,  # noqa: FBT001 - the base's signature
    ) -> Any:
        try:
            return super().prepare_field_value(field_name, field, value, value_is_complex)
        except ValueError:
            return value


S = TypeVar("S", bound=ServiceSettings)

_REQUIRED = cast("Any", PydanticUndefined)


def setting(default: Any = _REQUIRED, *, unit: str, why: str, secret: bool = False, **limits: Any) -> Any:
    """A field with its documentation; without `default` it must be set.

    Args:
        default: the value where the environment says nothing.
        unit: e.g. "s", "events", "bytes"; "" where there is none.
        why: one sentence that justifies the default or says what depends on the value.
        secret: never shown in problems or documentation.
        limits: pydantic's constraints (`ge`, `le`, `min_length`, …).
    """
    extra: JsonDict = {"unit": unit, "why": why, "secret": secret}
    return Field(default, description=why, json_schema_extra=extra, repr=not secret, **limits)


class SettingsInvalid(Exception):  # noqa: N818 - read as a fact in logs and exit messages
    """The environment does not make valid settings.

    Attributes:
        problems: one line for each thing to put right.
        fields: of the settings class, whose values are wrong, as far as that is known.
    """

    def __init__(self, problems: tuple[str, ...], fields: frozenset[str] = frozenset()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.fields = fields


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDoc:
    """One setting as people see it."""

    variable: str
    unit: str
    default: str
    why: str


def load(settings_cls: type[S], *, set_by: Mapping[str, str] | None = None, **overrides: Any) -> S:
    """Read the settings from the environment, `overrides` first.

    Args:
        settings_cls: what is read.
        set_by: fields to the variables that their overrides came from: whom a problem is told of.
        overrides: values by field.

    Raises:
        SettingsInvalid: with every problem at once, each naming its variable and what is expected there.
    """
    try:
        return settings_cls(**overrides)
    except ValidationError as error:
        docs = {doc.variable: doc for doc in describe(settings_cls)}
        prefix = settings_cls.model_config.get("env_prefix", "")
        found = [cast("Mapping[str, Any]", e) for e in error.errors()]
        raise SettingsInvalid(
            tuple(_problem(e, prefix, docs, set_by or {}) for e in found),
            frozenset(str(e["loc"][0]) for e in found if e["loc"]),
        ) from None


def try_load(
    settings_cls: type[S],
    problems: list[str],
    *,
    set_by: Mapping[str, str] | None = None,
    **overrides: Any,
) -> S | None:
    """As `load`; what is wrong is added to `problems`, so that it is told with what is wrong elsewhere."""
    try:
        return load(settings_cls, set_by=set_by, **overrides)
    except SettingsInvalid as error:
        problems.extend(error.problems)
        return None


def describe(settings_cls: type[ServiceSettings]) -> tuple[SettingDoc, ...]:
    """What may be set, in the order of the class."""
    prefix = settings_cls.model_config.get("env_prefix", "")
    docs = []
    for name, field in settings_cls.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        shown = "(required)" if field.is_required() else repr(field.get_default(call_default_factory=True))
        docs.append(
            SettingDoc(
                variable=f"{prefix}{name}".upper(),
                unit=str(extra.get("unit", "")),
                default="(secret)" if extra.get("secret") and not field.is_required() else shown,
                why=str(extra.get("why", "")),
            )
        )
    return tuple(docs)


def _problem(
    error: Mapping[str, Any], prefix: str, docs: Mapping[str, SettingDoc], set_by: Mapping[str, str]
) -> str:
    """One line of advice; never repeats the value given, which may be a secret."""
    path = [str(part) for part in error["loc"]]
    what = error["msg"].removeprefix("Value error, ").removesuffix(".")
    if not path:
        # Of several variables together: the rule that is broken names them.
        return f"{what}."
    own = f"{prefix}{path[0]}".upper()
    variable = set_by.get(path[0], own)
    where = variable + "".join(f"[{part}]" for part in path[1:])
    doc = docs.get(own)
    if doc is None:
        return f"{where}: {what}."
    unit = f" in {doc.unit}" if doc.unit else ""
    default = doc.default if doc.default.startswith("(") else f"(default {doc.default})"
    return f"{where}: {what}. Set {variable}{unit} {default}: {doc.why}."
