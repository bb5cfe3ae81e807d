"""The rules of a tenant as programs, one per event type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlsy.rules_engine.domain.codegen import TypeProgram, Version, compile_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class CompiledRuleSet:
    """The live, enabled versions of one tenant and the program of each event type; holds no state."""

    versions: tuple[Version, ...]
    programs: Mapping[str, TypeProgram]


def compile_rules(versions: Iterable[Version], previous: CompiledRuleSet | None = None) -> CompiledRuleSet:
    """Compiles the enabled rules; event types whose rules are those of `previous` are taken from it."""
    live = tuple(version for version in versions if version[1].enabled)
    by_type: dict[str, list[Version]] = {}
    for version in live:
        by_type.setdefault(version[1].event_type, []).append(version)
    known = previous.programs if previous is not None else {}
    programs: dict[str, TypeProgram] = {}
    for event_type, found in by_type.items():
        kept = known.get(event_type)
        ids = [version for version, _ in found]
        if kept is not None and [version for version, _ in kept.versions] == ids:
            programs[event_type] = kept
        else:
            programs[event_type] = compile_type(event_type, tuple(found))
    return CompiledRuleSet(live, programs)
