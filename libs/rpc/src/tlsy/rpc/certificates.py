"""The certificate that a server shows: that of its files, also after they were replaced."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from tlsy.runtime.host import TlsFiles

    #: Of each file: inode, size and when it was changed. Another link in its path shows another inode.
    Stamp = tuple[tuple[int, int, int], ...]


class ServerCertificate:
    """Certificate, key and authority of a server, read again once a new connection finds other files.

    While they cannot be read, or do not fit each other, what was read before is shown on. Connections that
    are open keep what they were opened with.
    """

    __slots__ = ("_files", "_lock", "_logger", "_stamp", "_tls", "_told")

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._files = [file for file in (tls.cert_file, tls.key_file, tls.ca_file) if file is not None]
        self._lock = Lock()
        self._stamp: Stamp = ()
        self._told = ""
        self._logger = get_logger("rpc.server")

    def credentials(self) -> grpc.ServerCredentials:
        """What the server listens with.

        Raises:
            OSError: a file cannot be read.
            ValueError: they are no certificates and key, or do not fit each other.
        """
        self._stamp = self._now()
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            self._renewed,  # type: ignore[arg-type]  # None is allowed, and documented
            self._tls.ca_file is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What to show from now on, None: the same. Called by gRPC before each handshake, on its threads."""
        with self._lock:
            try:
                # Before they are read: what is written meanwhile is other files for the next connection.
                stamp = self._now()
                if stamp == self._stamp:
                    self._told = ""
                    return None
                read = self._read()
            except Exception as error:  # noqa: BLE001 - whatever they are, the server goes on with what it has
                if self._told != str(error):
                    self._told = str(error)
                    self._logger.error(  # noqa: TRY400 - what is wrong is a file, not where it was read
                        "certificate not renewed", files=[str(file) for file in self._files], error=str(error)
                    )
                return None
            self._stamp, self._told = stamp, ""
            self._logger.info("certificate renewed", file=str(self._tls.cert_file))
            return read

    def _now(self) -> Stamp:
        found = [file.stat() for file in self._files]
        return tuple((each.st_ino, each.st_size, each.st_ctime_ns) for each in found)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        chain, key, *roots = [file.read_bytes() for file in self._files]
        certificate = x509.load_pem_x509_certificates(chain)[0]
        try:
            public_key = load_pem_private_key(key, None).public_key()
        except TypeError as error:
            raise ValueError(str(error)) from error
        if public_key != certificate.public_key():
            raise ValueError("the key is of another certificate")
        for authorities in roots:
            x509.load_pem_x509_certificates(authorities)
        return grpc.ssl_server_certificate_configuration([(key, chain)], roots[0] if roots else None)
