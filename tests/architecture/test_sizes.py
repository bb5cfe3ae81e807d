"""What is too long to be read at once is split by use case."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from tests.architecture.test_text import tracked_text
from tests.architecture.tree import ROOT, at, distributions, dotted, own_files, parse, python_files, services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE_LINES: Final = 500
MAX_FUNCTION_LINES: Final = 70
MAX_SERVICER_METHOD_LINES: Final = 12
MAX_README_LINES: Final = 60

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _lines(node: _Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _functions(node: ast.AST) -> Iterator[_Function]:
    return (each for each in ast.walk(node) if isinstance(each, _Function))


def long_file(path: Path, limit: int) -> list[str]:
    """The file, if it has more lines than the limit."""
    count = len(path.read_text(encoding="utf-8").splitlines())
    return [at(path, limit + 1, f"{count} lines, at most {limit}")] if count > limit else []


def long_functions(path: Path) -> list[str]:
    """Functions over the limit, from `def` to the last line."""
    return [
        at(path, node.lineno, f"{node.name} has {_lines(node)} lines, at most {MAX_FUNCTION_LINES}")
        for node in _functions(parse(path))
        if _lines(node) > MAX_FUNCTION_LINES
    ]


def long_servicer_methods(path: Path) -> list[str]:
    """Methods over the limit in a class that derives from a generated servicer: they translate only."""
    return [
        at(path, node.lineno, f"{node.name} has {_lines(node)} lines, at most {MAX_SERVICER_METHOD_LINES}")
        for servicer in ast.walk(parse(path))
        if isinstance(servicer, ast.ClassDef)
        and any(dotted(base).endswith("Servicer") for base in servicer.bases)
        for node in _functions(servicer)
        if node.name != "__init__" and _lines(node) > MAX_SERVICER_METHOD_LINES
    ]


def test_no_python_is_left_out() -> None:
    python = {path for path in tracked_text() if path.suffix == ".py"}
    assert python - set(own_files()) == set()


def test_files_are_short_enough_to_read() -> None:
    assert [problem for path in own_files() for problem in long_file(path, MAX_FILE_LINES)] == []


def test_functions_are_short_enough_to_read() -> None:
    assert [problem for path in own_files() for problem in long_functions(path)] == []


def test_servicer_methods_only_translate() -> None:
    rooms = (service.package / "rpc" for service in services())
    assert [problem for path in python_files(*rooms) for problem in long_servicer_methods(path)] == []


def test_every_distribution_has_a_readme_of_one_screen() -> None:
    readmes = [each.folder / "README.md" for each in distributions()]
    assert [str(path.relative_to(ROOT)) for path in readmes if not path.is_file()] == []
    assert [problem for path in readmes for problem in long_file(path, MAX_README_LINES)] == []


def test_a_long_file_is_found(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("x = 1\n" * 501)
    assert long_file(sample, MAX_FILE_LINES) == ["sample.py:501: 501 lines, at most 500"]


def test_a_long_function_is_found_wherever_it_is(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("class A:\n    async def work(self):\n" + "        await self.x()\n" * 70)
    assert long_functions(sample) == ["sample.py:2: work has 71 lines, at most 70"]


def test_a_servicer_method_that_decides_is_found(tmp_path: Path) -> None:
    sample = tmp_path / "servicer.py"
    body = "        x = 1\n" * 12
    sample.write_text(
        f"class Own(pb.BillingServiceServicer):\n    async def Get(self, request, context):\n{body}"
    )
    assert long_servicer_methods(sample) == ["servicer.py:2: Get has 13 lines, at most 12"]
