"""What must not be written: SQL among Python, notes, ignores without a reason; in tests waits and patches."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from typing import TYPE_CHECKING, Final

import pytest

from tests.architecture.tree import (
    ROOT,
    at,
    distributions,
    dotted,
    files_of_tests,
    own_files,
    parse,
    python_files,
    services,
)

if TYPE_CHECKING:
    from pathlib import Path

_SQL: Final = re.compile(
    r"\s*(SELECT\s.+\sFROM\s|SELECT\s+\S+\(|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\S+\s+AS\s*\()",
    re.IGNORECASE | re.DOTALL,
)
_NOTE: Final = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
#: What tells a checker to look away; the codes that it names are no reason.
_IGNORE: Final = re.compile(
    r"#\s*((ruff:\s*)?noqa(:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)?"
    r"|(type|pyright):\s*ignore(\[[^\]]*\])?|pragma:\s*no \w+)"
)
_BINARY: Final = frozenset({".lock", ".svg", ".png"})
_PATCHING: Final = frozenset({"setattr", "delattr", "setitem", "delitem"})


def sql_strings(path: Path) -> list[str]:
    """String literals that are SQL statements; documentation strings and comments are not."""
    tree = parse(path)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        at(path, node.lineno, "SQL lives in a .sql file")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
        and _SQL.match(node.value)
    ]


def notes(path: Path) -> list[str]:
    """Notes of unfinished work."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        at(path, number, "finish it, or open an issue instead of a note")
        for number, line in enumerate(lines, 1)
        if _NOTE.search(line)
    ]


def bare_ignores(path: Path) -> list[str]:
    """Ignores of a single line that do not say why, after the codes."""
    text = path.read_text(encoding="utf-8")
    if not _IGNORE.search(text):
        return []
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [
        at(path, token.start[0], "an ignore says why: # noqa: CODE - why, # type: ignore[code]  # why")
        for token in tokens
        if token.type == tokenize.COMMENT
        and _IGNORE.search(token.string)
        and not re.search(r"\w", _IGNORE.sub("", token.string))
    ]


def sleeps(path: Path) -> list[str]:
    """Waits for a time instead of a condition.

    The pause of a loop that asks again is none, nor is `asyncio.sleep(0)`, which only lets others run, nor a
    moment of chance (`random.uniform`), at which a test of failures strikes.
    """
    tree = parse(path)
    pauses = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
    return [
        at(path, node.lineno, "wait for a condition with a deadline, or move a fake clock")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and dotted(node.func) in {"time.sleep", "asyncio.sleep", "sleep"}
        and id(node) not in pauses
        and not (node.args and _is_no_wait(node.args[0]))
    ]


def _is_no_wait(argument: ast.expr) -> bool:
    match argument:
        case ast.Constant(value=0):
            return True
        case ast.Call(func=ast.Attribute(attr="uniform")):
            return True
    return False


def patches(path: Path) -> list[str]:
    """Replaced parts of modules and classes: fakes belong at ports."""
    problems = []
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import(names=names) if any(alias.name.split(".")[0] == "mock" for alias in names):
                problems.append(at(path, node.lineno, "fake at a port instead"))
            case ast.ImportFrom(module="unittest.mock" | "mock") | ast.ImportFrom(module="unittest"):
                problems.append(at(path, node.lineno, "fake at a port instead"))
            case ast.Import(names=names) if any(alias.name.startswith("unittest") for alias in names):
                problems.append(at(path, node.lineno, "fake at a port instead"))
            case ast.Attribute(value=ast.Name(id="monkeypatch"), attr=attr) if attr in _PATCHING:
                problems.append(at(path, node.lineno, "fake at a port instead"))
    return problems


def tracked_text(root: Path = ROOT) -> list[Path]:
    """Hand-written text under version control or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.split("\n")
    vendored = ("protos/google/", "protos/buf/")
    return [
        path
        for name in listed
        if name and "_pb2" not in name and not name.startswith(vendored)
        if (path := root / name).is_file() and path.suffix not in _BINARY
    ]


def test_services_keep_sql_in_sql_files() -> None:
    paths = python_files(*(service.package for service in services()))
    checked = (path for path in paths if "migrations" not in path.parts)
    assert [problem for path in checked for problem in sql_strings(path)] == []


def test_nothing_unfinished_is_noted() -> None:
    assert [problem for path in tracked_text() for problem in notes(path)] == []


def test_every_ignore_has_its_reason() -> None:
    assert [problem for path in own_files() for problem in bare_ignores(path)] == []


def test_tests_wait_for_conditions() -> None:
    # What sends a load (a benchmark, a load.py) keeps a pace: waiting for a time is what it does.
    bench = ROOT / "tests" / "bench"
    paths = (path for path in files_of_tests() if bench not in path.parents and path.name != "load.py")
    assert [problem for path in paths for problem in sleeps(path)] == []


def test_tests_patch_nothing() -> None:
    assert [problem for path in files_of_tests() for problem in patches(path)] == []


def test_every_package_is_typed_and_the_namespace_is_nobodys() -> None:
    assert [each.name for each in distributions() if not (each.package / "py.typed").is_file()] == []
    assert [
        str(path) for kind in ("libs", "services", "operators") for path in shadowed_namespaces(ROOT / kind)
    ] == []


def shadowed_namespaces(root: Path) -> list[Path]:
    """Files that would make `tlsy` the package of a single distribution."""
    return sorted(root.rglob("src/tlsy/__init__.py"))


def test_a_file_that_takes_the_namespace_is_found(tmp_path: Path) -> None:
    taken = tmp_path / "billing" / "src" / "tlsy" / "__init__.py"
    taken.parent.mkdir(parents=True)
    taken.touch()
    assert shadowed_namespaces(tmp_path) == [taken]


@pytest.mark.parametrize(
    "sql",
    [
        "select id from users",
        "SELECT tlsy.enter($1)",
        "INSERT INTO a VALUES (1)",
        "update a set b = 1",
        "delete from a",
    ],
)
def test_sql_among_python_is_found(tmp_path: Path, sql: str) -> None:
    (tmp_path / "sample.py").write_text(f'"""Select rows from users."""\nrows = db.fetch("{sql}")\n')
    assert sql_strings(tmp_path / "sample.py") == ["sample.py:2: SQL lives in a .sql file"]


def test_a_sentence_is_no_sql(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text('raise Wrong("update it before you select another")\n')
    assert sql_strings(tmp_path / "sample.py") == []


def test_an_unfinished_note_is_found(tmp_path: Path) -> None:
    (tmp_path / "sample.sql").write_text("-- TO" + "DO: index\n")
    assert len(notes(tmp_path / "sample.sql")) == 1


@pytest.mark.parametrize(
    "ignore",
    ["# noqa: S608", "# noqa: ARG002, N802", "# type: ignore[attr-defined]", "# noqa", "# pragma: no cover"],
)
def test_an_ignore_without_a_reason_is_found(tmp_path: Path, ignore: str) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        f"a = 1  {ignore}\nb = 2  {ignore} - why\nc = 3  {ignore}  # why\nd = 4  {ignore}  the proto's\n"
        f'e = "x = 1  {ignore}"\n'
    )
    assert [problem.split(": ")[0] for problem in bare_ignores(sample)] == ["sample.py:1"]


@pytest.mark.parametrize("line", ["time.sleep(1)", "await asyncio.sleep(0.1)", "sleep(delay)"])
def test_a_sleep_is_found(tmp_path: Path, line: str) -> None:
    chance = "await asyncio.sleep(random.uniform(0.5, 3.0))"
    (tmp_path / "sample.py").write_text(
        f"async def f():\n    {line}\n    await asyncio.sleep(0)\n    {chance}\n"
    )
    assert len(sleeps(tmp_path / "sample.py")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "from unittest.mock import patch",
        "from unittest import mock",
        "import mock",
        "monkeypatch.setattr(a, 'b', c)",
    ],
)
def test_a_patch_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "sample.py").write_text(f"{line}\nmonkeypatch.setenv('A', 'b')\n")
    assert len(patches(tmp_path / "sample.py")) == 1
