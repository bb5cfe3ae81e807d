"""A file with one secret in it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class OwnerOnlyFile:
    """See `SecretFile`: mode 0600 from its first byte, prepared as `<name>.part`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")

    def prepare(self, secret: str) -> None:
        """See `SecretFile.prepare`."""
        self._part.unlink(missing_ok=True)
        with os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())

    def publish(self) -> None:
        """See `SecretFile.publish`."""
        with suppress(FileNotFoundError):
            self._part.replace(self._path)
