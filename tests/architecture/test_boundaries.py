"""The import contracts of pyproject.toml can fail: each is shown a tree that breaks it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.tree import ROOT, distributions

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


@pytest.mark.parametrize(
    ("module", "content", "contract"),
    [
        ("tlsy.identity.app", "import tlsy.ingestion.domain", "Services are independent"),
        ("tlsy.rpc.server", "import tlsy.identity", "Services are independent"),
        ("tlsy.runtime.host", "import tlsy.tenancy", "Services are independent"),
        ("tlsy.tenancy.pool", "if TYPE_CHECKING:\n    import tlsy.rpc", "Services are independent"),
        ("tlsy.identity.handlers.log_in", "import tlsy.identity.adapters.postgres", "Inside a service"),
        ("tlsy.identity.domain.users", "import tlsy.identity.ports", "Inside a service"),
        ("tlsy.identity.rpc.servicer", "import tlsy.identity.adapters.postgres", "Inside a service"),
        ("tlsy.identity.domain.users", "import asyncpg", "The domain imports nothing"),
        ("tlsy.identity.domain.users", "import time", "The domain imports nothing"),
        ("tlsy.identity.domain.users", "import tlsy.rpc", "The domain imports nothing"),
        ("tlsy.broker.log", "import tlsy.runtime", "The broker stands alone"),
        ("tlsy.identity.app", "import tlsy.testkit", "What runs in production"),
        ("tlsy.eventlog.relay", "import tlsy.broker", "What runs in production"),
    ],
)
def test_a_tree_that_breaks_a_contract_fails(
    tmp_path: Path, module: str, content: str, contract: str
) -> None:
    neighbours = {"tlsy.identity.adapters.postgres": "", "tlsy.identity.ports": ""}
    sample_tree(tmp_path, {**neighbours, module: content})
    broken = [line for line in lint(tmp_path).splitlines() if line.endswith("BROKEN")]
    assert any(line.startswith(contract) for line in broken)
