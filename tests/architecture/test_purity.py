"""The domain decides without waiting; time, ids and chance are arguments there and in handlers."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

import pytest

from tests.architecture.tree import at, dotted, parse, python_files, services

if TYPE_CHECKING:
    from pathlib import Path

_WAITING: Final = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
_AMBIENT: Final = frozenset(
    {
        "date.today",
        "datetime.now",
        "datetime.today",
        "datetime.utcnow",
        "os.urandom",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.time",
        "time.time_ns",
        "uuid.uuid1",
        "uuid.uuid4",
        "uuid1",
        "uuid4",
    }
)
_CHANCE: Final = ("random.", "secrets.")


def waiting(path: Path) -> list[str]:
    """Places where a function of the domain may give up control."""
    return [
        at(path, node.lineno, "the domain does not wait")
        for node in ast.walk(parse(path))
        if isinstance(node, _WAITING)
    ]


def ambient(path: Path) -> list[str]:
    """Calls that take time, ids or chance from the surroundings instead of an argument."""
    problems = []
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if ".".join(name.split(".")[-2:]) in _AMBIENT or name.startswith(_CHANCE):
                problems.append(at(path, node.lineno, f"{name}: take it as an argument"))
    return problems


def _room(name: str) -> list[Path]:
    return list(python_files(*(service.package / name for service in services())))


def test_the_domain_never_waits() -> None:
    assert [problem for path in _room("domain") for problem in waiting(path)] == []


def test_domain_and_handlers_take_time_ids_and_chance_as_arguments() -> None:
    paths = _room("domain") + _room("handlers")
    assert [problem for path in paths for problem in ambient(path)] == []


@pytest.mark.parametrize(
    "sample", ["async def f(): ...", "async def f():\n    await g()", "async def f():\n    async with x: ..."]
)
def test_a_domain_that_waits_is_found(tmp_path: Path, sample: str) -> None:
    (tmp_path / "sample.py").write_text(sample)
    assert waiting(tmp_path / "sample.py")


@pytest.mark.parametrize(
    "sample",
    ["datetime.datetime.now(UTC)", "time.time()", "uuid4()", "random.choice(x)", "secrets.token_hex()"],
)
def test_ambient_time_ids_and_chance_are_found(tmp_path: Path, sample: str) -> None:
    (tmp_path / "sample.py").write_text(sample)
    assert len(ambient(tmp_path / "sample.py")) == 1


def test_a_clock_that_was_passed_in_is_welcome(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text("self._clock.now()\nclock.monotonic()\n")
    assert ambient(tmp_path / "sample.py") == []
