"""What an image is built from: a folder per image, made from uv.lock, uv and the sources.

Packages of others come through uv, which compares them with the lock file's hashes; ours are built as wheels,
by a builder of the lock file too.
Everything is for the Python and the system that the images have, whatever this program runs on.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parents[1]
#: Of the base images, see images/Dockerfile.
PYTHON: Final = "3.11"
_SYSTEM: Final = "manylinux_2_36"
#: Of one program: many times what the longest takes.
_TIMEOUT_S: Final = 1800.0
#: Make and migrate the tables of every service, in tenants' databases too: they have everybody's migrations.
_PROVISIONERS: Final = frozenset({"tenant-registry"})
_LAUNCHER: Final = """\
import runpy

runpy.run_module("tlsy.{package}", run_name="__main__", alter_sys=True)
"""


class BuildError(Exception):
    """An image cannot be built; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of the workspace that runs as a process.

    Attributes:
        folder: below the root.
        description: of its pyproject.toml.
        version: of it.
        third_party: name to what the lock file says of it, with hashes.
        ours: folders of the workspace that it needs, its own last.
    """

    folder: Path
    description: str
    version: str
    third_party: Mapping[str, str]
    ours: tuple[Path, ...]

    @property
    def name(self) -> str:
        """As its folder's."""
        return self.folder.name

    @property
    def package(self) -> str:
        """Of its module, below `tlsy`."""
        return self.name.replace("-", "_")

    @property
    def answers_calls(self) -> bool:
        """Whether it has a server."""
        return (ROOT / self.folder / "src" / "tlsy" / self.package / "rpc").is_dir()

    @property
    def provisions(self) -> bool:
        """Whether it needs the migrations of every service."""
        return self.name in _PROVISIONERS


def distribution(folder: Path) -> Distribution:
    """What the workspace and its lock file say of it."""
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    exported = _uv(
        *("export", "--frozen", "--no-dev", "--no-editable", "--no-annotate", "--no-header"),
        *("--package", project["name"]),
    )
    third_party: dict[str, str] = {}
    ours = []
    for block in exported.replace("\\\n", "").splitlines():
        if block.startswith("./"):
            ours.append(Path(block.split()[0]))
        elif block.strip():
            third_party[block.split("==")[0].strip()] = block
    ours.sort(key=lambda path: path == folder)
    return Distribution(folder, project["description"], project["version"], third_party, tuple(ours))


def needed(image: Distribution, servers: Iterable[Distribution]) -> frozenset[Path]:
    """Folders of the workspace that the image has something of; `servers` are all that there are."""
    return frozenset((*image.ours, *(each.folder for each in servers if image.provisions)))


def build_wheels(folders: Iterable[Path], target: Path) -> dict[Path, Path]:
    """A wheel of each of our distributions, by the builder that is locked: its version is in each."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    builder = target / "builder.txt"
    locked = _uv("export", "--frozen", "--only-group", "wheels", "--no-annotate", "--no-header")
    builder.write_text(locked, encoding="utf-8")
    by_hash = ("--build-constraints", str(builder), "--require-hashes")
    wheels = {}
    for folder in folders:
        out = ("--out-dir", str(target / folder.name))
        _uv("build", "--wheel", "--quiet", *by_hash, *out, str(ROOT / folder))
        wheels[folder] = next((target / folder.name).glob("*.whl"))
    return wheels


def prepare(
    image: Distribution, servers: Sequence[Distribution], wheels: Mapping[Path, Path], folder: Path
) -> None:
    """Fills the folder that the image is built from.

    Args:
        image: what it will run.
        servers: all that there are: what every one of them has is shared.
        wheels: of all ours that it needs.
        folder: where to; what is there is removed.
    """
    shared = frozenset.intersection(*(frozenset(each.third_party) for each in servers))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("Dockerfile", "closure.py"):
        shutil.copyfile(ROOT / "images" / name, folder / name)
    _install([block for name, block in image.third_party.items() if name in shared], folder / "shared")
    own = folder / image.name  # what the build argument DISTRIBUTION names
    _install([block for name, block in image.third_party.items() if name not in shared], own)
    for ours in image.ours:
        with zipfile.ZipFile(wheels[ours]) as wheel:
            wheel.extractall(own)
    for others in servers if image.provisions else ():
        with zipfile.ZipFile(wheels[others.folder]) as wheel:
            wheel.extractall(own, _migrations(wheel.namelist(), others.package))
    (own / "__main__.py").write_text(_LAUNCHER.format(package=image.package), encoding="utf-8")
    for part in (folder / "shared", own):
        _tidy(part)


def _migrations(names: Iterable[str], package: str) -> list[str]:
    """Of the files of a wheel those that its tables are made with, and that say where they are."""
    here = (f"tlsy/{package}/__init__.py", f"tlsy/{package}/migrations/")
    return [name for name in names if name.startswith(here) or ".dist-info/" in name]


def _install(requirements: Sequence[str], folder: Path) -> None:
    folder.mkdir()
    if not requirements:
        return
    listed = folder.with_suffix(".txt")
    listed.write_text("\n".join(requirements), encoding="utf-8")
    _uv(
        *("pip", "install", "--quiet", "--target", str(folder), "--python", sys.executable),
        *("--python-version", PYTHON, "--python-platform", f"{platform.machine()}-{_SYSTEM}"),
        *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--link-mode", "copy"),
        *("--requirements", str(listed)),
    )
    listed.unlink()


def _tidy(folder: Path) -> None:
    """Takes away what speaks of this machine, and what nobody runs: scripts, lists with their hashes."""
    shutil.rmtree(folder / "bin", ignore_errors=True)
    (folder / ".lock").unlink(missing_ok=True)
    for info in folder.glob("*.dist-info"):
        for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"):
            (info / name).unlink(missing_ok=True)
    for path in [folder, *folder.rglob("*")]:
        # The mask of whoever builds is no part of an image, nor is a mark that a wheel's maker left.
        path.chmod(0o755 if path.is_dir() or ".so" in path.suffixes else 0o644)


def run(command: Sequence[str], folder: Path = ROOT, stdin: IO[bytes] | None = None) -> str:
    """What a program prints.

    Raises:
        BuildError: it is not there, failed, or did not end.
    """
    try:
        ran = subprocess.run(  # noqa: S603 - programs of this machine with arguments of our own
            command,
            cwd=folder,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
    except FileNotFoundError:
        raise BuildError(f"'{command[0]}' is not on the PATH: install it") from None
    except subprocess.TimeoutExpired:
        raise BuildError(
            f"{' '.join(command[:2])} did not end in {_TIMEOUT_S:.0f} s: see what the engine does (docker ps)"
        ) from None
    if ran.returncode:
        raise BuildError(f"{' '.join(command[:2])} failed:\n{(ran.stderr or ran.stdout).strip()[-4000:]}")
    return ran.stdout.strip()


def _uv(*arguments: str) -> str:
    program = Path(sys.executable).parent / "uv"
    ran = subprocess.run(  # noqa: S603 - the program that made this environment
        [program, *arguments],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise BuildError(f"uv {arguments[0]} failed:\n{ran.stderr.strip()}")
    return ran.stdout


def locked_sbom(image: Distribution) -> Any:
    """What the lock file says of all that the image may have, as CycloneDX."""
    package = f"tlsy-{image.name}"
    told = _uv("export", "--frozen", "--no-dev", "--quiet", "--format", "cyclonedx1.5", "--package", package)
    return json.loads(told)
