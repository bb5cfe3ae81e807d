"""The folder that holds everything a suite on one machine must not lose, and the one for its sockets.

Exclusively locked while a suite runs on it. Secrets are made once, mode 0600. Sockets live in a fresh folder
of mode 0700 below the system's temporary one, because their paths must be short; that mode stands in for
mTLS.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from tlsy.rpc.keys import generate_key, jwks_of, load_signing_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from io import BufferedWriter

    from tlsy.rpc.keys import SigningKey

#: What a socket's path may have on every system, without the byte that ends it.
_MAX_SOCKET_PATH: Final = 103
SERVICES: Final = ("tenant-registry", "identity", "ingestion", "rules-engine")


class DataDirectoryInUseError(Exception):
    """Another suite runs on the same data directory."""


class DataDirectory:
    """One data directory, from `open` to `close`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sockets = Path()
        self._lock: BufferedWriter | None = None

    def open(self) -> None:
        """Makes what is missing, and locks it.

        Raises:
            DataDirectoryInUseError: a suite runs on it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        lock = (self.root / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            text = f"a suite already runs on {self.root}; stop it, or choose another data directory"
            raise DataDirectoryInUseError(text) from None
        self._lock = lock
        self._forget_sockets()
        self.secrets.mkdir(mode=0o700, exist_ok=True)
        self.sockets = Path(tempfile.mkdtemp(prefix="tlsy-"))
        self._sockets_link.symlink_to(self.sockets)
        self.postgres_socket.mkdir(mode=0o755)
        # PostgreSQL may run as another user, who must reach its own folder and nothing else in here.
        self.sockets.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.service_sockets.mkdir(mode=0o700)

    def close(self) -> None:
        """Removes the sockets and lets another suite have the directory."""
        self._forget_sockets()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def secrets(self) -> Path:
        """Keys that nobody else may read."""
        return self.root / "secrets"

    @property
    def postgres(self) -> Path:
        """The database server's own directory."""
        return self.root / "postgres"

    @property
    def postgres_socket(self) -> Path:
        """Where the database server listens."""
        return self.sockets / "pg"

    @property
    def service_sockets(self) -> Path:
        """Where services listen."""
        return self.sockets / "rpc"

    @property
    def run_file(self) -> Path:
        """Where a running suite says what listens where; there only once it is ready."""
        return self.root / "run.json"

    @property
    def context_file(self) -> Path:
        """A context for the command line; it stays when the suite stops."""
        return self.root / "context.yaml"

    @property
    def platform_key_file(self) -> Path:
        """The platform's API key, written once by identity."""
        return self.secrets / "platform.key"

    @property
    def identity_keys_file(self) -> Path:
        """What encrypts personal data at rest."""
        return self.secrets / "identity.keys"

    def address(self, service: str) -> str:
        """Where a service listens, as gRPC takes it."""
        return f"unix:{self.service_sockets / service}"

    def service_keys(self) -> Mapping[str, SigningKey]:
        """A signing key per service, the same at each start."""
        return {
            name: load_signing_key(self._once(f"{name}.jwk", lambda: generate_key().private_jwk))
            for name in SERVICES
        }

    def make_identity_keys(self, make: Callable[[], str]) -> None:
        """Makes what encrypts personal data at rest, where there is none yet."""
        self._once(self.identity_keys_file.name, make)

    def tell(self, brokers: Sequence[str]) -> None:
        """Writes the run file, and a context for the command line: others may connect now."""
        told = {
            "pid": os.getpid(),
            "services": {name: self.address(name) for name in SERVICES},
            "brokers": list(brokers),
            "postgres": str(self.postgres_socket),
            "api_key_file": str(self.platform_key_file),
        }
        _replace(self.context_file, yaml.safe_dump(self._contexts(), sort_keys=False))
        _replace(self.run_file, json.dumps(told, indent=2) + "\n")

    @property
    def _sockets_link(self) -> Path:
        return self.root / "sockets"

    def _forget_sockets(self) -> None:
        """Removes what a suite leaves that is over; one that was killed could not do it itself."""
        self.run_file.unlink(missing_ok=True)
        if self._sockets_link.is_symlink():
            shutil.rmtree(self._sockets_link.readlink(), ignore_errors=True)
            self._sockets_link.unlink()

    def _contexts(self) -> dict[str, object]:
        """The file that TLSY_CONFIG names for the command line; a copy is good after the next start too.

        What the command line added to it, as another user's context, stays.
        """
        try:
            before = yaml.safe_load(self.context_file.read_text(encoding="utf-8"))
            contexts = {**before["contexts"], "embedded": self._context()}
            current = before["current"] if before["current"] in contexts else "embedded"
        except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError):
            contexts, current = {"embedded": self._context()}, "embedded"
        return {"current": current, "contexts": contexts}

    def _context(self) -> dict[str, object]:
        lasting = self._sockets_link / self.service_sockets.name
        short = all(len(os.fsencode(lasting / name)) <= _MAX_SOCKET_PATH for name in SERVICES)
        return {
            "tenant": "platform",
            "addresses": {
                name: f"unix:{lasting / name}" if short else self.address(name) for name in SERVICES
            },
            "api_key_file": str(self.platform_key_file),
            "start": shlex.join(["python", "-m", "tlsy.embedded", "--data-dir", str(self.root)]),
        }

    def _once(self, name: str, make: Callable[[], str]) -> str:
        path = self.secrets / name
        if not path.exists():
            half = path.with_suffix(".new")
            descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            half.replace(path)
        return path.read_text(encoding="utf-8")


def _replace(path: Path, text: str) -> None:
    half = path.with_suffix(".new")
    half.write_text(text, encoding="utf-8")
    half.replace(path)


def trust_of(keys: Mapping[str, SigningKey]) -> Mapping[str, str]:
    """Service name to the JWKS that its tokens verify with."""
    return {name: jwks_of((key,)) for name, key in keys.items()}
