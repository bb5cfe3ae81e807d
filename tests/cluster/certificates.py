"""The cluster's own authority: who a component is, it says by a certificate, as in a real one."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LIFETIME: Final = dt.timedelta(days=30)
#: Clocks of one machine agree, but certificates count in whole seconds.
_SKEW: Final = dt.timedelta(minutes=5)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates for both ends of connections; the folder also gets its own as `ca.crt`."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls, folder: Path, name: str) -> Self:
        """One with a key of its own, in a folder that exists."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            _unsigned(subject, subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(folder, key, certificate)

    def issue(self, file: str, name: str, group: str = "", subjects: Sequence[str] = ()) -> None:
        """Writes `<file>.crt` and `<file>.key` for a user of a group, or for a server with these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        request = _unsigned(x509.Name(attributes), self.certificate.subject, key.public_key())
        if subjects:
            request = request.add_extension(
                x509.SubjectAlternativeName([_subject(each) for each in subjects]), critical=False
            )
        certificate = request.sign(self.key, hashes.SHA256())
        (self.folder / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.folder / f"{file}.key").write_bytes(_pem(key))

    def kubeconfig(self, server: str, name: str, group: str = "") -> str:
        """A file by which a client is that user."""
        self.issue(name, name, group)

        def data(file: str) -> str:
            return base64.b64encode((self.folder / file).read_bytes()).decode()

        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "tlsy",
                "contexts": [{"name": "tlsy", "context": {"cluster": "tlsy", "user": name}}],
                "clusters": [
                    {
                        "name": "tlsy",
                        "cluster": {"server": server, "certificate-authority-data": data("ca.crt")},
                    }
                ],
                "users": [
                    {
                        "name": name,
                        "user": {
                            "client-certificate-data": data(f"{name}.crt"),
                            "client-key-data": data(f"{name}.key"),
                        },
                    }
                ],
            }
        )


def write_signing_key(folder: Path) -> None:
    """The key pair of service accounts' tokens: `accounts.key`, `accounts.pub`."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "accounts.key").write_bytes(_pem(key))
    (folder / "accounts.pub").write_bytes(public)


def _subject(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _LIFETIME)
    )
