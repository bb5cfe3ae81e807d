"""A distribution imports what it declares and declares what it imports, so that it can be installed alone.

In the workspace everything is installed, and an undeclared import works until the wheel is alone somewhere.
Installed files tell which distribution a module is of, which also holds for namespaces such as `google`.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.architecture.tree import Distribution, at, distributions, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
#: Declared for their effect: nobody imports them.
EFFECT_ONLY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pytest": "runs the tests",
        "pytest-asyncio": "a plugin that pytest loads; it runs the test kit's fixtures",
        "tlsy-testkit": "a plugin that pytest loads",
        "tzdata": "the time zones, where the system has none",
        "sqlalchemy": "the engine under Alembic's operations",
    }
)


def _normal(requirement: str) -> str:
    match = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def modules_by_distribution() -> dict[str, str]:
    """Every installed module and package, dotted, to the distribution that brought it."""
    owners: dict[str, str] = {}
    for dist in importlib.metadata.distributions():
        owner = _normal(dist.metadata["Name"])
        for file in dist.files or ():
            parts = file.with_suffix("").parts
            if file.suffix in {".py", ".so"} and not parts[0].endswith((".dist-info", "..")):
                name = ".".join(part.split(".")[0] for part in parts).removesuffix(".__init__")
                owners.setdefault(name, owner)
    for each in distributions():
        owners[each.module] = f"tlsy-{each.name}"
    return owners


def owner_of(module: str, owners: Mapping[str, str]) -> str:
    """The distribution of a module; "" for the standard library; the module itself if nobody brings it."""
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names:
        return ""
    for length in range(len(parts), 0, -1):
        found = owners.get(".".join(parts[:length]))
        if found:
            return found
    return module


def _imports(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, (alias.name,)) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from ((node.lineno, (f"{module}.{alias.name}", module)) for alias in names)


def imported(folder: Path, owners: Mapping[str, str]) -> dict[str, str]:
    """Distribution to the first place in the folder that imports it, beside the folder's own modules."""
    places: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for line, names in _imports(path):
            found = next((owner for name in names if (owner := owner_of(name, owners)) != name), names[-1])
            places.setdefault(found, at(path, line, f"imports {found}"))
    own = {path.stem for path in folder.rglob("*.py")} | {
        path.name for path in folder.rglob("*") if path.is_dir()
    }
    return {name: place for name, place in places.items() if name and name.split(".")[0] not in own}


def declared(manifest: Path) -> tuple[set[str], set[str]]:
    """What a distribution needs to run, and what its tests need beside it."""
    content: dict[str, Any] = tomllib.loads(manifest.read_text(encoding="utf-8"))
    groups = content.get("dependency-groups", {}).get("dev", [])
    return {_normal(each) for each in content["project"]["dependencies"]}, {_normal(each) for each in groups}


def problems_of(dist: Distribution, owners: Mapping[str, str]) -> list[str]:
    """Undeclared imports and unused declarations of a distribution.

    Its tests may import one another (`libs.<name>.tests.…`); those of another distribution are in no wheel
    and can be declared nowhere.
    """
    run, test = declared(dist.folder / "pyproject.toml")
    own = f"tlsy-{dist.name}"
    sources = imported(dist.folder / "src", owners)
    own_tests = f"{dist.kind}.{dist.name}.tests."
    tests = {
        name: place
        for name, place in imported(dist.folder / "tests", owners).items()
        if not name.startswith(own_tests)
    }
    problems = [
        f"{place}, which is not declared" for name, place in sources.items() if name not in run | {own}
    ]
    problems += [
        f"{place}, which is declared neither to run nor in the group dev"
        for name, place in tests.items()
        if name not in run | test | {own}
    ]
    problems += [
        f"{dist.name}: declares {name} and never imports it"
        for name in sorted(run - sources.keys() - EFFECT_ONLY.keys())
    ]
    problems += [
        f"{dist.name}: its tests declare {name} and never import it"
        for name in sorted(test - tests.keys() - EFFECT_ONLY.keys())
    ]
    return problems


@pytest.fixture(scope="module")
def owners() -> dict[str, str]:
    return modules_by_distribution()


@pytest.mark.parametrize("dist", distributions(), ids=lambda dist: dist.name)
def test_it_imports_what_it_declares_and_declares_what_it_imports(
    dist: Distribution, owners: dict[str, str]
) -> None:
    assert problems_of(dist, owners) == []


def test_a_module_of_a_shared_namespace_is_known_by_its_distribution(owners: dict[str, str]) -> None:
    assert owner_of("google.protobuf.message", owners) == "protobuf"
    assert owner_of("google.rpc.status_pb2", owners) == "googleapis-common-protos"
    assert owner_of("tlsy.tenant_registry.app", owners) == "tlsy-tenant-registry"
    assert owner_of("asyncio", owners) == ""


def test_undeclared_and_unused_dependencies_are_found(tmp_path: Path, owners: dict[str, str]) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "src" / "a.py").write_text(
        "import asyncpg\nfrom google.protobuf import message\nimport json\n"
    )
    (tmp_path / "tests" / "test_a.py").write_text("import hypothesis\nimport asyncpg\n")
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["Protobuf>=7", "grpcio"]\n')
    found = problems_of(Distribution(tmp_path, "libs"), owners)
    assert found == [
        "a.py:1: imports asyncpg, which is not declared",
        "test_a.py:1: imports hypothesis, which is declared neither to run nor in the group dev",
        "test_a.py:2: imports asyncpg, which is declared neither to run nor in the group dev",
        f"{tmp_path.name}: declares grpcio and never imports it",
    ]


def test_tests_import_one_another_but_none_of_another_distribution(
    tmp_path: Path, owners: dict[str, str]
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        f"from libs.{tmp_path.name}.tests.world import A\nfrom libs.rpc.tests.world import B\n"
    )
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    found = problems_of(Distribution(tmp_path, "libs"), owners)
    undeclared = "which is declared neither to run nor in the group dev"
    assert found == [f"test_a.py:2: imports libs.rpc.tests.world, {undeclared}"]
