"""Copies what Python and a folder of packages need of this system into a new root.

Runs while an image is built (images/Dockerfile), by the Python of the base image: standard library only.
Copied are the interpreter, its standard library without what only developers use, each shared library that
one of them or of the packages is linked with, and the certificates. For scanners the Debian packages that the
files are of are listed in var/lib/dpkg/status.d, as in other images without a package manager.

Bytecode is made here and is never checked against its source: both are in the same read-only layer, and
times of files, which the usual check compares, are no part of what an image is.
"""

from __future__ import annotations

import argparse
import compileall
import functools
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Parts of the standard library that no service runs.
_DEVELOPERS: Final = frozenset(
    """
    __pycache__ dist-packages site-packages distutils ensurepip idlelib lib2to3 pydoc_data test tests tkinter
    turtle.py turtledemo
    """.split()  # noqa: SIM905 - a list of words is read more easily than a list of strings
)
#: Extensions of those parts. The public image has tkinter's, but not the library that it is linked with. Also
#: dbm's, that nothing uses: the libraries that they bring are megabytes.
_DEVELOPERS_EXTENSIONS: Final = re.compile(
    r"(_g?dbm|_tkinter|_(ctypes_)?test\w*|_xxtestfuzz|xxlimited\w*)\..*so"
)
#: Says which Python it is, where that is of no Debian package; sbom.py reads it.
PYTHON_VERSION: Final = Path("usr/share/tlsy/python-version")
_SYSTEM_FILES: Final = (
    Path("/etc/debian_version"),
    Path("/etc/ld.so.conf"),
    Path("/etc/nsswitch.conf"),
    Path("/etc/os-release"),
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/ssl/openssl.cnf"),
)
_ACCOUNTS: Final = {
    "etc/passwd": "root:x:0:0:root:/:/nologin\ntlsy:x:65532:65532:tlsy:/:/nologin\n",
    "etc/group": "root:x:0:\ntlsy:x:65532:\n",
}


def main() -> None:
    """See `closure.py --help`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path, help="the folder of packages")
    parser.add_argument("target", type=Path, help="the new root; or where the packages will be")
    parser.add_argument("--compile-only", action="store_true", help="only check and compile the packages")
    arguments = parser.parse_args()
    if arguments.compile_only:
        # Of what is linked beyond the shared part everything must be there already.
        _refuse_new_libraries(arguments.packages, Path("/rootfs"))
        _compile(arguments.packages, arguments.target)
        return
    new = arguments.target
    _copy_python(new)
    for library in _libraries([Path(sys.executable), *_extensions(new), *_extensions(arguments.packages)]):
        _copy(library, new)
    for file in _SYSTEM_FILES:
        if file.exists():
            _copy(file, new)
    if Path("/etc/ld.so.conf.d").is_dir():
        shutil.copytree("/etc/ld.so.conf.d", new / "etc/ld.so.conf.d")
    for name, text in _ACCOUNTS.items():
        (new / name).write_text(text, encoding="utf-8")
    (new / "tmp").mkdir(mode=0o1777)
    (new / "tmp").chmod(0o1777)
    subprocess.run(["/sbin/ldconfig", "-r", str(new)], check=True)  # noqa: S603 - our own root
    shutil.rmtree(new / "var", ignore_errors=True)  # its cache of inodes
    _list_packages(new)
    _compile(new / _library().relative_to("/"), _library())
    _compile(arguments.packages, arguments.packages)


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib")).resolve()


def _copy_python(new: Path) -> None:
    """The interpreter, also as `python3`, and its standard library."""
    # Where /bin and /lib are names of /usr/bin and /usr/lib, so are they in the new root.
    for link in Path("/").iterdir():
        if link.is_symlink() and link.name.startswith(("bin", "lib", "sbin")):
            new.mkdir(exist_ok=True)
            (new / link.name).symlink_to(link.readlink())
    interpreter = Path(sys.executable)
    _copy(interpreter, new)
    name = new / interpreter.parent.relative_to("/") / "python3"
    if not name.exists():
        name.symlink_to(interpreter.name)
    shutil.copytree(_library(), new / _library().relative_to("/"), ignore=left_out)


def left_out(folder: str, names: list[str]) -> set[str]:
    """What is not copied: for developers, to link with, or a name of something that is not there."""
    return {
        name
        for name in names
        if name in _DEVELOPERS
        or _DEVELOPERS_EXTENSIONS.fullmatch(name)
        or name.startswith("config-")
        or name.endswith(".a")
        or not (Path(folder) / name).exists()
    }


def _copy(file: Path, new: Path) -> None:
    """A file at its place, and the links by which it is reached."""
    place = new / file.parent.resolve().relative_to("/") / file.name
    if place.is_symlink() or place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if file.is_symlink():
        link = file.readlink()
        place.symlink_to(link)
        _copy(file.parent.resolve() / link, new)
    else:
        shutil.copy2(file, place)


def _extensions(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and ".so" in path.suffixes)


def _libraries(linked: Sequence[Path]) -> set[Path]:
    """The shared libraries of the system that these are linked with, through one another."""
    found = set()
    for program in linked:
        ran = subprocess.run(  # noqa: S603 - files of the image that is built
            ["ldd", str(program)],  # noqa: S607 - as above
            capture_output=True,
            text=True,
            check=False,
        )
        if "not found" in ran.stdout:
            sys.exit(f"{program}: the base image lacks a library:\n{ran.stdout}")
        words = (word for line in ran.stdout.splitlines() for word in line.split())
        found |= {Path(word) for word in words if word.startswith("/")}
    # Wheels bring libraries of their own, beside their extensions.
    return {path for path in found if not any(part.endswith(".libs") for part in path.parts)}


def _refuse_new_libraries(packages: Path, root: Path) -> None:
    missing = [path for path in _libraries(list(_extensions(packages))) if not _is_in(root, path)]
    if missing:
        sys.exit(f"link with what no other image has: {sorted(map(str, missing))}")


def _is_in(root: Path, path: Path) -> bool:
    return (root / path.resolve().relative_to("/")).exists() or path.is_relative_to("/own")


def _compile(folder: Path, place: Path) -> None:
    """Bytecode of everything in the folder, which will be at another place."""
    done = compileall.compile_dir(
        folder,
        quiet=1,
        force=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        stripdir=str(folder),
        prependdir=str(place),
        maxlevels=20,
    )
    if not done:
        sys.exit(f"{folder}: not everything can be compiled")


def _list_packages(new: Path) -> None:
    """What dpkg knows of each package that a copied file is of, and which Python it is if dpkg knows none."""
    copied = {path.relative_to(new) for path in new.rglob("*") if path.is_file() and not path.is_symlink()}
    resolved = functools.cache(os.path.realpath)
    owners, owned = set(), set()
    for listing in Path("/var/lib/dpkg/info").glob("*.list"):
        for line in listing.read_text(encoding="utf-8").splitlines():
            parent, _, name = line.rpartition("/")
            file = Path(resolved(parent or "/"), name).relative_to("/")
            if file in copied:
                owners.add(listing.stem.split(":")[0])
                owned.add(file)
    folder = new / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    for stanza in Path("/var/lib/dpkg/status").read_text(encoding="utf-8").split("\n\n"):
        name = stanza.partition("\n")[0].removeprefix("Package: ")
        if name in owners:
            (folder / name).write_text(f"{stanza.strip()}\n", encoding="utf-8")
    if Path(os.path.realpath(sys.executable)).relative_to("/") not in owned:
        (new / PYTHON_VERSION).parent.mkdir(parents=True)
        (new / PYTHON_VERSION).write_text(f"{platform.python_version()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
