"""An image made of one program, as a file that container runtimes import."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: The kernel's name to the one of images; the others that Go builds for have one name.
_ARCHITECTURES: Final[Mapping[str, str]] = MappingProxyType({"x86_64": "amd64", "aarch64": "arm64"})


def write_image(file: Path, name: str, program: Path, machine: str = "") -> None:
    """An image whose entry point is the program, with nothing else in it; without arguments it pauses.

    The format is that of `docker save`; the same program gives the same bytes. It is for this machine, or for
    one that calls itself `machine` (`uname -m`).
    """
    machine = machine or platform.machine()
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        _add(archive, program.name, program.read_bytes(), mode=0o755)
    content = layer.getvalue()
    config = {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "Cmd": ["pause"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(file, mode="w") as archive:
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "layer.tar", content)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = mode
    archive.addfile(member, io.BytesIO(content))
