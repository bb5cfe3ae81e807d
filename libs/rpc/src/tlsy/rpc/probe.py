"""Asks the process that runs beside it for its health: `python -m tlsy.rpc.probe`, for containers.

It finds the server by the same settings (TLSY_LISTEN, TLSY_TLS_…) and, where callers must show a certificate,
shows the server's own. Kubernetes' own gRPC probe, which costs no process, is for servers in clear text.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tlsy.runtime.environment import HostSettings
from tlsy.runtime.settings import SettingsInvalid, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EXIT_NOT_SERVING: Final = 1
EXIT_SETTINGS: Final = 78  # as of the services

#: To listen everywhere is to listen on the loopback.
_EVERYWHERE: Final = (("0.0.0.0:", "127.0.0.1:"), ("[::]:", "[::1]:"))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 if the process answers SERVING in time, 1 if not, 78 if the settings are wrong."""
    parser = argparse.ArgumentParser(prog="python -m tlsy.rpc.probe", description=__doc__)
    parser.add_argument("--service", default="", help="full name of a gRPC service; default: the whole")
    parser.add_argument("--timeout-s", type=float, default=3.0, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    try:
        settings = load(HostSettings)
        channel = _channel(settings)
    except (SettingsInvalid, OSError, ValueError) as error:
        sys.stderr.write(f"probe: {error}\n")
        return EXIT_SETTINGS
    with channel:
        health = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(
                health_pb2.HealthCheckRequest(service=arguments.service), timeout=arguments.timeout_s
            )
        except grpc.RpcError as error:
            sys.stdout.write(f"{error.code().name}: {error.details()}\n")
            return EXIT_NOT_SERVING
    sys.stdout.write(f"{health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}\n")
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else EXIT_NOT_SERVING


def _channel(settings: HostSettings) -> grpc.Channel:
    target = settings.listen
    for everywhere, here in _EVERYWHERE:
        if target.startswith(everywhere):
            target = here + target.removeprefix(everywhere)
    # A proxy of the environment knows no way to this process.
    options: list[tuple[str, object]] = [("grpc.enable_http_proxy", 0)]
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return grpc.insecure_channel(target, options)
    authority = settings.tls_ca_file
    credentials = grpc.ssl_channel_credentials(
        root_certificates=authority.read_bytes() if authority is not None else None,
        private_key=settings.tls_key_file.read_bytes(),
        certificate_chain=settings.tls_cert_file.read_bytes(),
    )
    # Nobody's certificate is for the loopback: the name that the server's own has is the one to expect.
    options.append(("grpc.ssl_target_name_override", _name_in(settings.tls_cert_file)))
    return grpc.secure_channel(target, credentials, options)


def _name_in(certificate: Path) -> str:
    """The first name that a server's certificate is for.

    Raises:
        ValueError: it has none, or the file is no certificate.
    """
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    found = [] if names is None else names.get_values_for_type(x509.DNSName)
    if not found:
        raise ValueError(f"{certificate}: is for no name (subjectAltName, DNS)")
    return found[0].replace("*", "any", 1)


if __name__ == "__main__":
    sys.exit(main())
