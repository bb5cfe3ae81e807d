"""grpcurl, built once from its published module into the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tlsy.testkit.kafka import MissingToolError

#: Go 1.21 and newer can build it.
_MODULE: Final = "github.com/fullstorydev/grpcurl/cmd/grpcurl"
_VERSION: Final = "v1.9.3"
_BUILD_TIMEOUT_S: Final = 600


def grpcurl() -> Path:
    """The program; the first use fetches and builds it.

    Raises:
        MissingToolError: go is not on the PATH.
        subprocess.CalledProcessError: it could not be built; go said why on standard error.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tlsy" / f"grpcurl-{_VERSION}"
    program = cache / "grpcurl"
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            raise MissingToolError("'go' is not on the PATH: install Go 1.21 or newer (https://go.dev/dl)")
        subprocess.run(  # noqa: S603 - a pinned module
            [go, "install", f"{_MODULE}@{_VERSION}"],
            check=True,
            timeout=_BUILD_TIMEOUT_S,
            env={**os.environ, "GOBIN": str(cache), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"},
        )
    return program
