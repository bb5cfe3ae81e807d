from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tlsy.identity.domain.api_keys import ApiKey, hash_secret, parse, prefix_of, refusal, render, use_is_news
from tlsy.identity.domain.ids import KeyId

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = UUID(int=1)
SECRET = bytes(range(32))


def key(**changes: object) -> ApiKey:
    fields: dict[str, object] = {
        "id": KeyId(UUID(int=2)),
        "display_name": "agent",
        "role": "agent",
        "secret_hash": hash_secret(SECRET),
        "prefix": prefix_of(SECRET),
        "create_time": NOW,
        "expire_time": None,
        "revoke_time": None,
        "last_used_time": None,
    }
    return ApiKey(**(fields | changes))  # type: ignore[arg-type]  # a test names the fields it changes


def test_what_is_rendered_is_parsed_without_the_secret() -> None:
    text = render(TENANT, KeyId(UUID(int=2)), SECRET)
    parsed = parse(text)
    assert parsed is not None
    assert (parsed.tenant_id, parsed.key_id, parsed.secret_hash) == (TENANT, UUID(int=2), hash_secret(SECRET))
    assert SECRET.hex() not in repr(parsed)


@pytest.mark.parametrize(
    "text", ["", "tlsy_1_2_3", "tlsy__", "x" * 256, f"TLSY_{'0' * 32}_{'0' * 32}_{'0' * 64}"]
)
def test_what_is_no_key_is_not_parsed(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (None, "KEY_UNKNOWN"),
        (key(secret_hash=hash_secret(b"other"), revoke_time=NOW), "KEY_SECRET_WRONG"),
        (key(revoke_time=NOW), "KEY_REVOKED"),
        (key(expire_time=NOW), "KEY_EXPIRED"),
        (key(expire_time=NOW + timedelta(seconds=1)), None),
    ],
)
def test_a_key_is_refused_for_the_first_reason_that_holds(stored: ApiKey | None, reason: str | None) -> None:
    presented = parse(render(TENANT, KeyId(UUID(int=2)), SECRET))
    assert presented is not None
    assert refusal(stored, presented, NOW) == reason


def test_its_use_is_written_once_an_hour() -> None:
    assert use_is_news(key(), NOW)
    assert not use_is_news(key(last_used_time=NOW - timedelta(minutes=59)), NOW)
    assert use_is_news(key(last_used_time=NOW - timedelta(hours=1)), NOW)
