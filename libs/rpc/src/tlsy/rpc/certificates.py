"""The certificate that either end of a connection shows: that of its files, also after they were replaced."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from tlsy.runtime.host import TlsFiles

    #: Of each file: inode, size and when it was changed. Another link in its path shows another inode.
    Stamp = tuple[tuple[int, int, int], ...]


class Shown(NamedTuple):
    """In PEM; without `roots` a server asks for no certificate, and a client trusts the usual authorities."""

    key: bytes
    chain: bytes
    roots: bytes | None


class CertificateFiles:
    """Certificate, key and authority, read again once they are other files.

    While they cannot be read, or do not fit each other, what was read before stays in use.
    """

    __slots__ = ("_files", "_lock", "_logger", "_refused", "_stamp", "_tls", "_told")

    def __init__(self, tls: TlsFiles, component: str) -> None:
        self._tls = tls
        self._files = [file for file in (tls.cert_file, tls.key_file, tls.ca_file) if file is not None]
        self._lock = Lock()
        self._stamp: Stamp = ()
        self._refused: Stamp = ()
        self._told = ""
        self._logger = get_logger(component)

    def read(self) -> Shown:
        """What to begin with.

        Raises:
            OSError: a file cannot be read.
            ValueError: they are no certificates and key, or do not fit each other.
        """
        self._stamp = self._now()
        return _shown(self._read())

    def renewed(self) -> Shown | None:
        """What to show from now on, None: the same. From any thread."""
        with self._lock:
            try:
                # Before they are read: what is written meanwhile is other files for the next connection.
                stamp = self._now()
                if stamp == self._stamp:
                    self._told = ""
                if stamp in (self._stamp, self._refused):
                    return None
                content = self._read()
                # Until they prove to be whole: to find that they are not takes as long as many calls.
                self._refused = stamp
                shown = _shown(content)
            except Exception as error:  # noqa: BLE001 - whatever they are, it goes on with what it has
                if self._told != str(error):
                    self._told = str(error)
                    self._logger.error(  # noqa: TRY400 - what is wrong is a file, not where it was read
                        "certificate not renewed", files=[str(file) for file in self._files], error=str(error)
                    )
                return None
            self._stamp, self._told = stamp, ""
            self._logger.info("certificate renewed", file=str(self._tls.cert_file))
            return shown

    def _now(self) -> Stamp:
        found = [file.stat() for file in self._files]
        return tuple((each.st_ino, each.st_size, each.st_ctime_ns) for each in found)

    def _read(self) -> list[bytes]:
        return [file.read_bytes() for file in self._files]


def _shown(content: list[bytes]) -> Shown:
    chain, key, *roots = content
    certificate = x509.load_pem_x509_certificates(chain)[0]
    try:
        public_key = load_pem_private_key(key, None).public_key()
    except TypeError as error:
        raise ValueError(str(error)) from error
    if public_key != certificate.public_key():
        raise ValueError("the key is of another certificate")
    for authorities in roots:
        x509.load_pem_x509_certificates(authorities)
    return Shown(key, chain, roots[0] if roots else None)


def server_credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """What a server listens with, which shows the files as they are to new connections.

    Raises:
        OSError, ValueError: see `CertificateFiles.read`.
    """
    files = CertificateFiles(tls, "rpc.server")

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before each handshake, on its threads."""
        shown = files.renewed()
        return None if shown is None else _configuration(shown)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.read()),
        renewed,  # type: ignore[arg-type]  # None is allowed, and documented
        tls.ca_file is not None,
    )


def _configuration(shown: Shown) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(shown.key, shown.chain)], shown.roots)
