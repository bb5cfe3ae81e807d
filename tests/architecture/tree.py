"""What the architecture checks look at: the distributions of this repository and their files.

A check is a function from files to problems, each a line that says where and what. A test asks it about this
repository; another feeds it a sample that breaks the rule.
"""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]

Kind = Literal["libs", "services", "operators"]
_KINDS: Final[tuple[Kind, ...]] = ("libs", "services", "operators")


@dataclass(frozen=True, slots=True)
class Distribution:
    """One folder of libs/, services/ or operators/ with its own pyproject.toml."""

    folder: Path
    kind: Kind

    @property
    def name(self) -> str:
        """As in the folder's name, e.g. "tenant-registry"."""
        return self.folder.name

    @property
    def module(self) -> str:
        """As in imports, e.g. "tlsy.tenant_registry"."""
        return f"tlsy.{self.name.replace('-', '_')}"

    @property
    def package(self) -> Path:
        """Where that module's files are."""
        return self.folder / "src" / "tlsy" / self.name.replace("-", "_")

    @property
    def answers_calls(self) -> bool:
        """Whether it has a server."""
        return (self.package / "rpc").is_dir()


def distributions(root: Path = ROOT, *, kinds: tuple[Kind, ...] = _KINDS) -> tuple[Distribution, ...]:
    """Every distribution of these kinds, by kind and name."""
    return tuple(
        Distribution(manifest.parent, kind)
        for kind in kinds
        for manifest in sorted((root / kind).glob("*/pyproject.toml"))
    )


def services(root: Path = ROOT) -> tuple[Distribution, ...]:
    """Services and operators: what has rooms."""
    return distributions(root, kinds=("services", "operators"))


def python_files(*folders: Path) -> Iterator[Path]:
    """Hand-written Python below these folders, in order."""
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            if "_pb2" not in path.name and "__pycache__" not in path.parts:
                yield path


def own_files(root: Path = ROOT) -> Iterator[Path]:
    """All hand-written Python of the repository."""
    folders = (*_KINDS, "tests", "examples", "deploy", "images")
    yield from (*sorted(root.glob("*.py")), *python_files(*(root / folder for folder in folders)))


def files_of_tests(root: Path = ROOT) -> Iterator[Path]:
    """The Python of every tests folder."""
    yield from python_files(*(each.folder / "tests" for each in distributions(root)), root / "tests")


@functools.cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file, as it was when first asked for; not to be changed."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def at(path: Path, line: int, text: str) -> str:
    """A problem as one line that an editor can follow."""
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{line}: {text}"


def dotted(node: ast.expr) -> str:
    """The name that an expression spells, e.g. "asyncio.sleep"; "" for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            left = dotted(value)
            return f"{left}.{attr}" if left else ""
    return ""
