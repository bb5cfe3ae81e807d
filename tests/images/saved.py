"""Images without an engine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def saved(file: Path, labels: Mapping[str, str], files: Mapping[str, bytes]) -> Path:
    """As `docker save` writes an image with these labels and one layer of these files."""
    layer = _tar(files)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels},
        "rootfs": {"diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "Layers": ["layer.tar"]}]
    parts = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
    file.write_bytes(_tar({**parts, "layer.tar": layer}))
    return file


def _tar(files: Mapping[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()
