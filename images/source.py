"""Whether images are of the sources that are here: each is labelled with a digest of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from images.context import ROOT, run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from images.layout import Layout

LABEL: Final = "dev.tlsy.source"
#: All that an image is made of, but for its base; one digest of it all, whichever of them an image has.
_SOURCES: Final = (
    "images",
    "uv.lock",
    *(f":(glob){kind}/*/src/**" for kind in ("libs", "services", "operators")),
    *(f":(glob){kind}/*/pyproject.toml" for kind in ("libs", "services", "operators")),
)


class StaleError(Exception):
    """Images are of other sources than those that are here; the message says which and what to do."""


def source_digest(root: Path = ROOT) -> str:
    """Of the names and contents of what Git knows or would add."""
    listed = run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_SOURCES], root
    )
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed.split("\0"))):
        file = root / name
        if file.is_file():
            digest.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def check_sources(layout: Layout, names: Iterable[str], digest: str) -> None:
    """Compare images with the sources.

    Args:
        layout: that they are in; one that it does not have is not stale.
        names: of the images.
        digest: of the sources.

    Raises:
        StaleError: some of them are of other sources.
    """
    built = {name: labels.get(LABEL) for name in names if (labels := layout.labels(name)) is not None}
    stale = [name for name, source in built.items() if source != digest]
    if stale:
        raise StaleError(f"{', '.join(stale)} were built from other sources than these: make images")
