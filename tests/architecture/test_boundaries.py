"""The import contracts of pyproject.toml can fail: each is shown a tree that breaks it.

The demonstration and the tests that cross services are no packages of the linter; their rules are below.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.tree import ROOT, at, distributions, parse, python_files, services

CONFIG: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]


def sample_tree(root: Path, files: dict[str, str]) -> None:
    """Empty packages of every root, and one file per dotted module name."""
    for package in CONFIG["root_packages"]:
        for room in ("", "domain"):
            folder = root.joinpath(*package.split("."), room)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "__init__.py").touch()
    for module, content in files.items():
        path = root.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(content)


def lint(root: Path) -> str:
    """What the linter says of the tree, by the configuration of this repository."""
    ran = subprocess.run(
        [
            Path(sys.executable).parent / "lint-imports",
            "--config",
            ROOT / "pyproject.toml",
            "--no-cache",
            "--no-logo",
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ran.stdout + ran.stderr


def test_every_distribution_is_under_the_contracts() -> None:
    assert sorted(CONFIG["root_packages"]) == sorted(each.module for each in distributions())


def test_a_tree_that_keeps_the_contracts_passes(tmp_path: Path) -> None:
    sample_tree(
        tmp_path, {"tlsy.identity.app": "import tlsy.identity.domain\nimport tlsy.rpc\nimport asyncio\n"}
    )
    assert "0 broken" in lint(tmp_path)


SUITE: Final = "Services are independent"
ROOMS: Final = "Inside a service"
PURE: Final = "The domain imports nothing"
BROKER: Final = "The broker stands alone"
PRODUCTION: Final = "What runs in production"
BREACHES: Final = (
    (SUITE, "tlsy.identity.app", "tlsy.ingestion.domain"),
    (SUITE, "tlsy.rpc.server", "tlsy.identity"),
    (SUITE, "tlsy.runtime.host", "tlsy.tenancy"),
    (SUITE, "tlsy.tenancy.only_for_types", "tlsy.rpc.server"),
    (ROOMS, "tlsy.identity.handlers.log_in", "tlsy.identity.adapters.postgres"),
    (ROOMS, "tlsy.identity.rpc.servicer", "tlsy.identity.adapters.postgres"),
    (ROOMS, "tlsy.identity.domain.roles", "tlsy.identity.ports"),
    (PURE, "tlsy.identity.domain.users", "asyncpg"),
    (PURE, "tlsy.identity.domain.keys", "time"),
    (PURE, "tlsy.identity.domain.bindings", "tlsy.rpc"),
    (BROKER, "tlsy.broker.log", "tlsy.runtime"),
    (PRODUCTION, "tlsy.ingestion.app", "tlsy.testkit"),
    (PRODUCTION, "tlsy.eventlog.relay", "tlsy.broker"),
)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tree with every breach, and what the linter says of it: contract to imports."""
    tree = tmp_path_factory.mktemp("breaches")
    imports = {module: f"import {target}" for _, module, target in BREACHES}
    types = {"tlsy.tenancy.only_for_types": "if TYPE_CHECKING:\n    import tlsy.rpc.server"}
    neighbours = {"tlsy.identity.adapters.postgres": "", "tlsy.identity.ports": ""}
    sample_tree(tree, neighbours | imports | types)
    said = lint(tree)
    listed = said[said.index("Broken contracts") :]
    starts = sorted(
        (listed.index(contract), contract) for contract in {contract for contract, _, _ in BREACHES}
    )
    ends = [start for start, _ in starts[1:]] + [len(listed)]
    return {contract: listed[start:end] for (start, contract), end in zip(starts, ends, strict=True)}


@pytest.mark.parametrize(("contract", "module", "target"), BREACHES)
def test_a_breach_is_found(broken: dict[str, str], contract: str, module: str, target: str) -> None:
    assert f"{module} -> {target} " in broken[contract]


#: What is for everybody who calls the suite.
FOR_CLIENTS: Final = frozenset({"contracts", "rpc", "runtime"})
#: A service as a whole, and what of it is pure.
FROM_OUTSIDE: Final = frozenset({"app", "settings", "domain"})
#: Wires a service without one of its guards, to show that the guard is missed; holds what all services refuse
#: against what the command line says of it.
INSIDE: Final = frozenset(
    {ROOT / "tests/isolation/code_guards.py", ROOT / "tests/architecture/test_refusals.py"}
)


def imports_of_ours(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name of each import from `tlsy`."""
    found = []
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import(names=names):
                found += [(node.lineno, alias.name) for alias in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found += [(node.lineno, f"{module}.{alias.name}") for alias in names]
    return [(line, name) for line, name in found if name.startswith("tlsy.")]


def not_for_clients(path: Path) -> list[str]:
    """Imports that a customer's program could not have."""
    return [
        at(path, line, f"a demonstration does without {name}")
        for line, name in imports_of_ours(path)
        if name.split(".")[1] not in FOR_CLIENTS
    ]


def insides(path: Path) -> list[str]:
    """Imports of a service's rooms that only the service's own tests know."""
    ours = {each.module for each in services()}
    return [
        at(path, line, f"{name} is inside a service")
        for line, name in imports_of_ours(path)
        if ".".join(name.split(".")[:2]) in ours and not FROM_OUTSIDE.issuperset(name.split(".")[2:3])
    ]


def test_the_demonstration_is_a_client() -> None:
    assert [problem for path in python_files(ROOT / "examples") for problem in not_for_clients(path)] == []


def test_what_crosses_services_sees_them_from_outside() -> None:
    paths = [path for path in python_files(ROOT / "tests") if path not in INSIDE]
    assert [problem for path in paths for problem in insides(path)] == []


def test_a_demonstration_that_looks_inside_is_found(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("from tlsy.rpc.channel import dial\nfrom tlsy.tenancy import Tenancy\n")
    assert not_for_clients(sample) == ["sample.py:2: a demonstration does without tlsy.tenancy.Tenancy"]


def test_a_look_inside_a_service_is_found(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text("from tlsy.identity.app import build\nfrom tlsy.identity import handlers\n")
    assert insides(sample) == ["sample.py:2: tlsy.identity.handlers is inside a service"]
