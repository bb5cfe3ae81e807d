"""A service loads at its start what it needs in any case, and only once its settings are good."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from tests.architecture.tree import services

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

#: What makes tables, and where reports and spans go if a setting says so: as much as all the rest.
_NOT_IN_ANY_CASE: Final = frozenset(
    {"alembic", "mako", "opentelemetry.exporter", "sentry_sdk", "sqlalchemy", "tlsy.tenancy.rendering"}
)
#: What there is no use for in a process whose settings are wrong, or that only tells of them.
_OF_ONE_THAT_RUNS: Final = frozenset({"aiokafka", "grpc"})


def loaded_by(modules: Sequence[str], unwanted: Collection[str]) -> set[str]:
    """Which of `unwanted` a process has after importing the modules."""
    program = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    return set(unwanted) & set(ran.stdout.split())


def test_no_service_loads_what_few_processes_need() -> None:
    apps = [f"{service.module}.app" for service in services() if service.answers_calls]
    assert len(apps) >= 4
    assert loaded_by(apps, _NOT_IN_ANY_CASE) == set()


def test_wrong_settings_are_told_before_the_service_is_loaded() -> None:
    mains = [f"{service.module}.__main__" for service in services() if service.answers_calls]
    assert loaded_by(mains, _OF_ONE_THAT_RUNS) == set()


def test_a_service_that_loads_too_much_is_found() -> None:
    assert loaded_by(["tlsy.tenancy.rendering"], _NOT_IN_ANY_CASE) >= {"alembic", "sqlalchemy"}
