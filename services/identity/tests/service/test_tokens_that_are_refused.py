from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import OctKey

from tlsy.contracts.identity.v1 import identity_pb2 as pb
from tlsy.rpc.keys import generate_key

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass
class Forge:
    header: dict[str, Any]
    claims: dict[str, Any]


@pytest_asyncio.fixture(loop_scope="session")
async def forge(suite) -> Forge:
    """The parts of a good token, to be put together in bad ways."""
    key = await suite.signer()
    now = time.time()
    claims = {
        "iss": "tlsy.identity",
        "sub": "tenants/acme/users/00000000-0000-7000-8000-000000000009",
        "tid": str(suite.tenants["shared"].tenant_id),
        "slug": "acme",
        "aud": ["tlsy"],
        "roles": [["client-admin", None]],
        "iat": now,
        "exp": now + 60,
        "jti": "forged",
    }
    return Forge({"alg": "ES256", "kid": key.kid, "typ": "JWT"}, claims)


def list_users(suite, token: str) -> Any:
    return suite.stub(token).ListUsers(pb.ListUsersRequest(parent="tenants/acme"))


async def test_what_the_tests_forge_is_good_before_it_is_spoilt(suite, forge) -> None:
    key = await suite.signer()
    await list_users(suite, jwt.encode(forge.header, forge.claims, key.key, ["ES256"]))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iat": time.time() - 120, "exp": time.time() - 60}, "TOKEN_EXPIRED"),
        ({"aud": ["ingestion"]}, "TOKEN_AUDIENCE"),
        ({"iss": "services/identity"}, "TOKEN_KEY_UNKNOWN"),
        ({"iss": "somebody"}, "TOKEN_ISSUER"),
        ({"exp": time.time() + 90_000}, "TOKEN_LIFETIME"),
        ({"roles": [["service", None]]}, "TOKEN_ISSUER"),
    ],
)
async def test_a_well_signed_token_with_a_bad_claim_is_refused(
    suite, forge, refused, changes, reason
) -> None:
    key = await suite.signer()
    token = jwt.encode(forge.header, forge.claims | changes, key.key, ["ES256"])
    assert (await refused(list_users(suite, token))).reason == reason


async def test_a_token_of_another_key_under_a_known_id_is_refused(suite, forge, refused) -> None:
    token = jwt.encode(forge.header, forge.claims, generate_key().key, ["ES256"])
    assert (await refused(list_users(suite, token))).reason == "TOKEN_SIGNATURE"


async def test_a_token_without_signature_is_refused(suite, forge, refused) -> None:
    for algorithm in ("none", "None", "NONE"):
        parts = [json.dumps(part).encode() for part in ({**forge.header, "alg": algorithm}, forge.claims)]
        token = ".".join([*(_base64(part) for part in parts), ""])
        assert (await refused(list_users(suite, token))).reason == "TOKEN_ALGORITHM"


async def test_a_public_key_used_as_a_secret_is_refused(suite, forge, refused) -> None:
    public = json.dumps((await suite.signer()).public_jwk)
    token = jwt.encode({**forge.header, "alg": "HS256"}, forge.claims, OctKey.import_key(public), ["HS256"])
    assert (await refused(list_users(suite, token))).reason == "TOKEN_ALGORITHM"


async def test_a_token_for_another_service_is_refused_here(suite, refused) -> None:
    _, secret = await suite.api_key("shared", "client-admin")
    answer = await suite.stub().ExchangeApiKey(
        pb.ExchangeApiKeyRequest(api_key=secret, audience=["ingestion"])
    )
    error = await refused(list_users(suite, answer.token.access_token))
    assert error.reason == "TOKEN_AUDIENCE"


def _base64(data: bytes) -> str:

    return base64.urlsafe_b64encode(data).decode().rstrip("=")
