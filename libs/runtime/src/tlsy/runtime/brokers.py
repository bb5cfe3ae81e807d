"""Where the brokers are, and how one gets in."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable

_FILES: Final = ("ca_file", "cert_file", "key_file", "password_file")


class FileUnusable(OSError):  # noqa: N818 - read as a fact
    """A file that brokers need is not there, or holds something else."""


@dataclass(frozen=True, slots=True)
class Brokers:
    """Bootstrap servers, "host:port" with commas; in clear unless there is a CA file.

    Holds no secret: the files are read whenever a client is made, so what is written anew needs no restart.

    Attributes:
        servers: as clients take them.
        ca_file: PEM; each server must show a certificate for its host name that is signed by one of these.
        cert_file: PEM; ours, where servers ask for one.
        key_file: of that certificate.
        user: who we are (SCRAM-SHA-512).
        password_file: its password.
    """

    servers: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    user: str = ""
    password_file: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Brokers:
        """From "host:port,…?ca_file=…&user=…&password_file=…", written as in a URL.

        Raises:
            ValueError: with everything that is wrong.
        """
        servers, _, query = text.partition("?")
        found = dict(parse_qsl(query, keep_blank_values=True))
        user = found.pop("user", "")
        unknown = sorted(found.keys() - set(_FILES))
        files = {name: Path(found[name]) for name in _FILES if name in found}
        made = cls(servers, user=user, **files)
        problems = [f"{name} is not known here" for name in unknown] + made.problems()
        if problems:
            raise ValueError("; ".join(problems))
        return made

    def problems(self, named: Callable[[str], str] = str) -> list[str]:
        """All that is wrong; `named` says what a field is called where it was set."""
        names = ("ca_file", "cert_file", "key_file", "user", "password_file")
        ca, cert, key, user, password = map(named, names)
        problems = []
        if (self.cert_file is None) != (self.key_file is None):
            problems.append(f"{cert} and {key} go together")
        if bool(self.user) != (self.password_file is not None):
            problems.append(f"{user} and {password} go together")
        if self.ca_file is None and (self.user or any(self._files())):
            problems.append(f"{ca} is needed with the others: nothing of them is shown to who is not known")
        for name, read in ((ca, self._trust), (f"{cert} and {key}", self._pair), (password, self._password)):
            try:
                read()
            except FileUnusable as error:
                problems.append(f"{name}: {error}")
        return problems

    def arguments(self) -> dict[str, Any]:
        """What aiokafka's clients take.

        Raises:
            FileUnusable: naming the file.
        """
        arguments: dict[str, Any] = {"bootstrap_servers": self.servers}
        if (context := self._trust()) is not None:
            self._pair(context)
            arguments |= {"security_protocol": "SSL", "ssl_context": context}
            if self.user:
                arguments |= {
                    "security_protocol": "SASL_SSL",
                    "sasl_mechanism": "SCRAM-SHA-512",
                    "sasl_plain_username": self.user,
                    "sasl_plain_password": self._password(),
                }
        return arguments

    def written(self) -> tuple[tuple[int, ...], ...]:
        """Another one once a file was written anew: a client that was made before holds what was there."""
        return tuple(_written(path) for path in self._files() if path is not None)

    def _files(self) -> tuple[Path | None, ...]:
        return (self.ca_file, self.cert_file, self.key_file, self.password_file)

    def _trust(self) -> ssl.SSLContext | None:
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise FileUnusable(f"{self.ca_file} has no certificates: {_words(error)}") from error

    def _pair(self, context: ssl.SSLContext | None = None) -> None:
        if self.cert_file is None or self.key_file is None:
            return
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            # With a password nobody is asked for one at a terminal, where the key is encrypted.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:
            pair = f"{self.cert_file} and {self.key_file}"
            raise FileUnusable(f"{pair} are no certificate and its key: {_words(error)}") from error

    def _password(self) -> str:
        if self.password_file is None:
            return ""
        try:
            # What an editor puts at the end of the line is not of it; blanks may be.
            password = self.password_file.read_text(encoding="utf-8").removesuffix("\n")
        except OSError as error:
            raise FileUnusable(f"{self.password_file} cannot be read: {_words(error)}") from error
        except UnicodeError:
            raise FileUnusable(f"{self.password_file} is no text") from None
        if not password:
            raise FileUnusable(f"{self.password_file} is empty")
        return password


def _written(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _words(error: OSError) -> str:
    """Without numbers and places in C, which are all that OpenSSL says of what is not as it has to be."""
    if isinstance(error, ssl.SSLError) and not error.reason:
        return "not in PEM, broken, or encrypted"
    return (getattr(error, "reason", None) or error.strerror or str(error)).replace("_", " ").lower()
