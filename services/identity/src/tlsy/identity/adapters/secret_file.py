"""A file with one secret in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class OwnerOnlyFile:
    """See `SecretFile`: written whole or not at all, mode 0600 from its first byte."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, secret: str) -> None:
        """See `SecretFile.write`."""
        part = self._path.with_name(self._path.name + ".part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
