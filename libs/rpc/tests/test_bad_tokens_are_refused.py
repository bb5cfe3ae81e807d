"""Every way in which a token can be bad, through a real server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from uuid import uuid4

import grpc
import pytest
from joserfc import jwt

from libs.rpc.tests.world import ACME, OTHER, bearer, refused
from tlsy.contracts.identity.v1.identity_pb2 import GetUserRequest, ListRevocationsRequest
from tlsy.rpc.errors import Unauthenticated
from tlsy.rpc.keys import generate_key, jwks_of
from tlsy.rpc.permissions import RoleBinding
from tlsy.rpc.tokens import Actor, TokenClaims, TokenVerifier, issue_token
from tlsy.runtime.ids import PLATFORM_TENANT_ID
from tlsy.testkit.clock import FakeClock

OWN_USER = GetUserRequest(name="tenants/acme/users/u")
UNREADABLE = b"\x0a\x01\xff"


def b64(data: object) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def payload(claims: TokenClaims) -> dict[str, object]:
    return {
        "iss": claims.issuer,
        "sub": claims.principal,
        "tid": str(claims.tenant_id),
        "slug": claims.slug,
        "aud": list(claims.audience),
        "roles": [[binding.role, binding.module] for binding in claims.roles],
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "jti": claims.token_id,
    }


async def reason_of(client, token: str) -> str:
    error = await refused(client.identity.GetUser(OWN_USER, metadata=bearer(token), timeout=5))
    assert isinstance(error, Unauthenticated)
    return error.reason


async def test_a_good_token_is_taken(world, client):
    answer = await client.identity.GetUser(OWN_USER, metadata=bearer(world.token("viewer", "client-admin")))
    assert answer.name == OWN_USER.name


async def test_no_token_is_refused(world, client):
    error = await refused(client.identity.GetUser(OWN_USER))
    assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")


async def test_a_token_of_another_scheme_is_refused(world, client):
    metadata = (("authorization", f"Digest {world.token('client-admin')}"),)
    assert (await refused(client.identity.GetUser(OWN_USER, metadata=metadata))).reason == "TOKEN_MALFORMED"


async def test_an_expired_token_is_refused(world, client):
    now = world.clock.now().timestamp()
    token = world.token("client-admin", issued_at=now - 700, expires_at=now - 1)
    assert await reason_of(client, token) == "TOKEN_EXPIRED"


async def test_a_remembered_token_still_expires(world, client):
    token = world.token("client-admin", expires_at=world.clock.now().timestamp() + 0.3)
    assert (await client.identity.GetUser(OWN_USER, metadata=bearer(token))).name
    await world.clock.sleep(0.35)
    assert await reason_of(client, token) == "TOKEN_EXPIRED"


@pytest.mark.parametrize(("ahead_s", "taken"), [(20, True), (40, False)])
async def test_a_token_from_the_future_is_refused_beyond_the_skew(world, client, ahead_s, taken):
    issued_at = world.clock.now().timestamp() + ahead_s
    token = world.token("client-admin", issued_at=issued_at, expires_at=issued_at + 600)
    if taken:
        assert (await client.identity.GetUser(OWN_USER, metadata=bearer(token))).name
    else:
        assert await reason_of(client, token) == "TOKEN_NOT_YET_VALID"


async def test_a_token_with_a_later_not_before_is_refused(world, client):
    later = payload(world.claims("client-admin")) | {"nbf": world.clock.now().timestamp() + 60}
    token = jwt.encode({"alg": "ES256", "kid": world.key.kid}, later, world.key.key, ["ES256"])
    assert await reason_of(client, token) == "TOKEN_NOT_YET_VALID"


async def test_a_token_for_another_service_is_refused(world, client):
    assert await reason_of(client, world.token("client-admin", audience=("ingestion",))) == "TOKEN_AUDIENCE"


async def test_a_token_for_the_whole_suite_is_taken(world, client):
    token = world.token("client-admin", audience=("tlsy",))
    assert (await client.identity.GetUser(OWN_USER, metadata=bearer(token))).name


async def test_an_audience_that_is_a_text_is_refused(world, client):
    told = payload(world.claims("client-admin")) | {"aud": "identity"}
    token = jwt.encode({"alg": "ES256", "kid": world.key.kid}, told, world.key.key, ["ES256"])
    assert await reason_of(client, token) == "TOKEN_MALFORMED"


async def test_a_token_of_an_unknown_issuer_is_refused(world, client):
    assert await reason_of(client, world.token("client-admin", issuer="someone")) == "TOKEN_ISSUER"


async def test_a_token_that_lives_too_long_is_refused(world, client):
    expires_at = world.clock.now().timestamp() + 86_400
    assert await reason_of(client, world.token("client-admin", expires_at=expires_at)) == "TOKEN_LIFETIME"


async def test_a_token_that_expires_before_it_was_issued_is_refused(world, client):
    now = world.clock.now().timestamp()
    token = world.token("client-admin", issued_at=now + 20, expires_at=now + 10)
    assert await reason_of(client, token) == "TOKEN_LIFETIME"


async def test_a_remembered_token_is_verified_again_after_half_a_minute(world):
    """Its key may have been taken back; that is not looked at in between."""
    clock = FakeClock(world.clock.now())
    verifier = TokenVerifier("identity", keys=world.jwks, trust={}, deny_list=world.deny_list, clock=clock)
    token = world.token("client-admin")
    await verifier.verify(token)
    world.jwks.replace(jwks_of((generate_key(),)), version=1)
    clock.advance(29)
    await verifier.verify(token)
    clock.advance(2)
    with pytest.raises(Unauthenticated) as refusal:
        await verifier.verify(token)
    assert refusal.value.reason == "TOKEN_KEY_UNKNOWN"


async def test_alg_none_is_refused(world, client):
    head = {"alg": "none", "kid": world.key.kid}
    token = f"{b64(head)}.{b64(payload(world.claims('client-admin')))}."
    assert await reason_of(client, token) == "TOKEN_ALGORITHM"


async def test_the_public_key_as_a_shared_secret_is_refused(world, client):
    """Key confusion: HS256 over the PEM and over the JWK of the public key."""
    for secret in (world.key.key.as_pem(private=False), json.dumps(world.key.public_jwk).encode()):
        signed = f"{b64({'alg': 'HS256', 'kid': world.key.kid})}.{b64(payload(world.claims('client-admin')))}"
        mac = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        assert await reason_of(client, f"{signed}.{b64(mac)}") == "TOKEN_ALGORITHM"


async def test_a_token_signed_by_another_key_is_refused(world, client):
    forger = replace(generate_key(), kid=world.key.kid)
    token = issue_token(forger, world.claims("client-admin"))
    assert await reason_of(client, token) == "TOKEN_SIGNATURE"


async def test_a_key_sent_along_with_the_token_is_not_used(world, client):
    forger = generate_key()
    header = {"alg": "ES256", "kid": forger.kid, "jwk": forger.public_jwk}
    token = jwt.encode(header, payload(world.claims("client-admin")), forger.key, ["ES256"])
    assert await reason_of(client, token) == "TOKEN_MALFORMED"


async def test_a_changed_payload_is_refused(world, client):
    head, body, signature = world.token("viewer").split(".")
    stronger = b64(payload(world.claims("internal-admin")))
    assert body != stronger
    assert await reason_of(client, f"{head}.{stronger}.{signature}") == "TOKEN_SIGNATURE"


async def test_a_token_of_an_unknown_key_is_refused(world, client):
    stranger = generate_key()
    token = issue_token(stranger, world.claims("client-admin", key_id=stranger.kid))
    assert await reason_of(client, token) == "TOKEN_KEY_UNKNOWN"


async def test_an_oversized_token_is_refused_before_it_is_read(world, client):
    assert await reason_of(client, "x" * 4097) == "TOKEN_TOO_LARGE"


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "a.b.c.d", f"{b64([])}.{b64({})}.x"])
async def test_what_is_no_token_is_refused(world, client, token):
    assert await reason_of(client, token) == "TOKEN_MALFORMED"


async def test_a_deeply_nested_token_is_refused(world, client):
    token = f"{b64(b'[' * 2000)}.{b64({})}.x"
    assert await reason_of(client, token) == "TOKEN_MALFORMED"


@pytest.mark.parametrize(
    "more", [{"crit": 1}, {"crit": ["x"]}, {"x5c": 1}, {"b64": False}, {"zip": "DEF"}, {"kid": "\ud800"}]
)
async def test_a_token_whose_header_says_more_is_refused(world, client, more):
    _, body, signature = world.token("client-admin").split(".")
    header = {"alg": "ES256", "kid": world.key.kid} | more
    reason = await reason_of(client, f"{b64(header)}.{body}.{signature}")
    assert reason in {"TOKEN_MALFORMED", "TOKEN_KEY_UNKNOWN"}


async def test_a_signed_header_that_says_more_is_refused(world, client):
    header = {"alg": "ES256", "kid": world.key.kid, "jku": "https://example.org/"}
    token = jwt.encode(header, payload(world.claims("client-admin")), world.key.key, ["ES256"])
    assert await reason_of(client, token) == "TOKEN_MALFORMED"


async def test_a_type_that_is_no_text_is_refused(world, client):
    _, body, signature = world.token("client-admin").split(".")
    header = {"alg": "ES256", "kid": world.key.kid, "typ": 3}
    assert await reason_of(client, f"{b64(header)}.{body}.{signature}") in {
        "TOKEN_MALFORMED",
        "TOKEN_SIGNATURE",
    }


@pytest.mark.parametrize("missing", ["sub", "tid", "slug", "aud", "roles", "iat", "exp", "jti"])
async def test_a_token_without_a_claim_is_refused(world, client, missing):
    told = payload(world.claims("client-admin"))
    del told[missing]
    token = jwt.encode({"alg": "ES256", "kid": world.key.kid}, told, world.key.key, ["ES256"])
    assert await reason_of(client, token) == "TOKEN_MALFORMED"


@pytest.mark.parametrize("roles", [[["client-admin", ""]], [["client-admin"]], "x", [["viewer", None]] * 101])
async def test_a_token_with_malformed_roles_is_refused(world, client, roles):
    told = payload(world.claims()) | {"roles": roles}
    token = jwt.encode({"alg": "ES256", "kid": world.key.kid}, told, world.key.key, ["ES256"])
    assert await reason_of(client, token) == "TOKEN_MALFORMED"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, True, "1"])
async def test_a_time_that_is_no_number_is_refused(world, client, number):
    told = payload(world.claims("client-admin")) | {"exp": number}
    token = jwt.encode({"alg": "ES256", "kid": world.key.kid}, told, world.key.key, ["ES256"])
    assert await reason_of(client, token) in {"TOKEN_MALFORMED", "TOKEN_LIFETIME"}


async def test_a_revoked_principals_tokens_are_refused_at_once(world, client):
    token = world.token("client-admin")
    assert (await client.identity.GetUser(OWN_USER, metadata=bearer(token))).name
    claims = world.claims()
    world.deny_list.revoke(ACME, claims.principal, revoked_at=claims.issued_at, expires_at=claims.expires_at)
    assert await reason_of(client, token) == "TOKEN_REVOKED"
    assert [(told.reason, told.resource) for told in world.denials.calls] == [("TOKEN_REVOKED", "")]


async def test_nothing_is_read_for_a_caller_who_is_not_known(world, client):
    """What takes the parser long, and what it cannot read, is told from one another only by reading it."""
    get = client.channel.unary_unary("/tlsy.identity.v1.IdentityService/GetUser")
    tail = client.channel.unary_stream("/tlsy.ingestion.v1.IngestionService/TailEvents")
    claims = world.claims("client-admin")
    world.deny_list.revoke(ACME, claims.principal, revoked_at=claims.issued_at, expires_at=claims.expires_at)
    revoked = bearer(issue_token(world.key, claims))
    assert (await refused(get(UNREADABLE))).reason == "TOKEN_MISSING"
    assert (await refused(tail(UNREADABLE).read())).reason == "TOKEN_MISSING"
    assert (await refused(get(UNREADABLE, metadata=bearer("x")))).reason == "TOKEN_MALFORMED"
    assert (await refused(get(UNREADABLE, metadata=revoked))).reason == "TOKEN_REVOKED"
    assert (await refused(tail(UNREADABLE, metadata=revoked).read())).reason == "TOKEN_REVOKED"
    assert [(told.reason, told.resource) for told in world.denials.calls] == [("TOKEN_REVOKED", "")] * 2


async def test_what_is_open_to_everybody_is_read_for_everybody(client):
    log_in = client.channel.unary_unary("/tlsy.identity.v1.IdentityService/LogIn")
    assert (await refused(log_in(UNREADABLE))).reason == "REQUEST_UNREADABLE"


async def test_a_token_issued_after_the_revocation_is_taken(world, client):
    now = world.clock.now().timestamp()
    world.deny_list.revoke(ACME, world.claims().principal, revoked_at=now - 0.001, expires_at=now + 600)
    answer = await client.identity.GetUser(OWN_USER, metadata=bearer(world.token("client-admin")))
    assert answer.name == OWN_USER.name


async def test_a_revocation_reaches_exchanged_tokens(world, client):
    claims = world.claims("client-admin", actor=Actor(OTHER, world.claims().principal))
    world.deny_list.revoke(OTHER, claims.principal, revoked_at=claims.issued_at, expires_at=claims.expires_at)
    assert await reason_of(client, issue_token(world.key, claims)) == "TOKEN_REVOKED"


async def test_a_service_cannot_sign_for_anyone_but_itself(world, client):
    good = world.service_tokens()
    body = good.token_for("identity").split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(body + "=="))
    for lie in (
        {"sub": "services/identity"},
        {"tid": str(ACME)},
        {"roles": [["internal-admin", None]]},
        {"act": {"tid": str(ACME), "sub": "x"}},
    ):
        forged = jwt.encode(
            {"alg": "ES256", "kid": world.service_key.kid}, told | lie, world.service_key.key, ["ES256"]
        )
        assert await reason_of(client, forged) == "TOKEN_ISSUER", lie


async def test_a_service_cannot_sign_in_anothers_name(world, client):
    told = payload(world.claims(RoleBinding("service"), issuer="services/billing"))
    forged = jwt.encode(
        {"alg": "ES256", "kid": world.service_key.kid}, told, world.service_key.key, ["ES256"]
    )
    assert await reason_of(client, forged) == "TOKEN_KEY_UNKNOWN"


async def test_a_service_cannot_sign_identitys_tokens(world, client):
    claims = world.claims("internal-admin", key_id=world.service_key.kid)
    assert await reason_of(client, issue_token(world.service_key, claims)) == "TOKEN_KEY_UNKNOWN"


async def test_the_role_of_services_is_in_their_own_tokens_only(world, client):
    assert await reason_of(client, world.token("service")) == "TOKEN_ISSUER"


async def test_a_service_token_for_another_callee_is_refused(world, client):
    assert await reason_of(client, world.service_tokens().token_for("billing")) == "TOKEN_AUDIENCE"


async def test_a_service_has_a_token_for_each_callee(world, client):
    tokens = world.service_tokens()
    assert await reason_of(client, tokens.token_for("billing")) == "TOKEN_AUDIENCE"
    metadata = bearer(tokens.token_for("identity"))
    await client.identity.ListRevocations(ListRevocationsRequest(), metadata=metadata)


async def test_a_service_token_for_the_whole_suite_is_refused(world, client):
    claims = world.claims(
        RoleBinding("service"),
        issuer="services/ingestion",
        principal="services/ingestion",
        tenant_id=PLATFORM_TENANT_ID,
        audience=("tlsy",),
        key_id=world.service_key.kid,
    )
    assert await reason_of(client, issue_token(world.service_key, claims)) == "TOKEN_AUDIENCE"


async def test_nothing_of_a_refused_call_reaches_the_handler(world, client):
    await reason_of(client, f"{uuid4()}")
    assert world.identity.calls == []
