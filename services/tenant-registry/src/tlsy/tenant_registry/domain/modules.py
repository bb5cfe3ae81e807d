"""Modules: the parts of the product that a tenant has switched on, and which of them need which others."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tlsy.tenant_registry.domain.errors import NotAllowedNowError, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Module to the modules that must be on with it.
REQUIRES: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "supervision": frozenset(),
        "expert-rules": frozenset({"supervision"}),
        "reporting": frozenset({"supervision"}),
        "status-page": frozenset({"supervision"}),
        "billing": frozenset(),
        "audit-export": frozenset(),
        "enterprise-sso": frozenset(),
    }
)


def module_violations(
    modules: frozenset[str], parent_active: frozenset[str] | None, field: str
) -> tuple[Violation, ...]:
    """All that is wrong with switching on exactly `modules` below a parent (None: at the top)."""
    return tuple(_module_violations(modules, parent_active, field))


def _module_violations(
    modules: frozenset[str], parent_active: frozenset[str] | None, field: str
) -> Iterator[Violation]:
    for unknown in sorted(modules - REQUIRES.keys()):
        yield Violation(field, "MODULE_UNKNOWN", f"There is no module {unknown!r}.")
    for module in sorted(modules & REQUIRES.keys()):
        for missing in sorted(REQUIRES[module] - modules):
            yield Violation(field, "MODULE_REQUIRES", f"Module {module!r} requires {missing!r}.")
    if parent_active is not None:
        for beyond in sorted((modules & REQUIRES.keys()) - parent_active):
            yield Violation(field, "MODULE_EXCEEDS_PARENT", f"The parent does not have module {beyond!r}.")


def switched(
    modules: frozenset[str], module: str, *, enabled: bool, parent_active: frozenset[str] | None
) -> frozenset[str]:
    """The modules after switching `module`, which is a known one.

    Raises:
        NotAllowedNowError: MODULE_REQUIRES, MODULE_REQUIRED or MODULE_EXCEEDS_PARENT.
    """
    if not enabled:
        if users := sorted(other for other in modules if module in REQUIRES[other]):
            raise NotAllowedNowError("MODULE_REQUIRED", f"Switch off first: {', '.join(users)}.")
        return modules - {module}
    if parent_active is not None and module not in parent_active:
        raise NotAllowedNowError("MODULE_EXCEEDS_PARENT", f"The parent does not have module {module!r}.")
    if missing := sorted(REQUIRES[module] - modules):
        raise NotAllowedNowError("MODULE_REQUIRES", f"Switch on first: {', '.join(missing)}.")
    return modules | {module}


def active(modules: frozenset[str], parent_active: frozenset[str] | None) -> frozenset[str]:
    """Which own modules are in effect: none that the parent lacks, none without what it requires.

    Requirements are one level deep, so one pass is enough.
    """
    held = modules if parent_active is None else modules & parent_active
    return frozenset(module for module in held if REQUIRES[module] <= held)
