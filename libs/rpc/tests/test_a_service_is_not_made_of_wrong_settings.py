from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tlsy.rpc.assembly import assemble
from tlsy.runtime.host import TlsFiles
from tlsy.runtime.settings import SettingsInvalid

PEERS = {"identity": "unix:/nowhere", "tenant-registry": "unix:/nowhere"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"peers": {}}, "TLSY_PEERS: no address of tenant-registry is known."),
        ({"service_key": "{}"}, "TLSY_SERVICE_KEY_FILE: not a JWK."),
        ({"trust": {"ingestion": "x"}}, "TLSY_TRUST_DIR: not a JWKS."),
        (
            {"tls": TlsFiles(Path("/no/where"), Path("/no/key"), None)},
            "TLSY_TLS_CERT_FILE: [Errno 2] No such file or directory: '/no/where'.",
        ),
    ],
)
async def test_the_setting_that_is_wrong_is_named(world, wrong, said):
    host = replace(world.host, **({"peers": PEERS} | wrong))
    with pytest.raises(SettingsInvalid) as caught:
        assemble(host, "identity")
    assert caught.value.problems == (said,)
