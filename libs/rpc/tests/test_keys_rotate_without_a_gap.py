from __future__ import annotations

import asyncio
import json

import pytest
from joserfc.jwk import OctKey, RSAKey

from tlsy.rpc.keys import (
    Jwks,
    KeyInvalid,
    generate_key,
    jwks_of,
    load_public_keys,
    load_signing_key,
)
from tlsy.testkit.clock import FakeClock


class Publisher:
    """Identity's GetJwks, as the test sets it."""

    def __init__(self, *keys) -> None:
        self.keys = keys
        self.version = 1
        self.asked = 0
        self.away = False

    async def fetch(self) -> tuple[str, int]:
        self.asked += 1
        if self.away:
            raise ConnectionError("away")
        return jwks_of(self.keys), self.version


OLD, NEW = generate_key(), generate_key()


async def test_a_key_announced_ahead_is_there_when_it_signs():
    publisher = Publisher(OLD, NEW)
    jwks = Jwks(publisher.fetch, FakeClock())
    assert await jwks.key(OLD.kid) is not None
    assert await jwks.key(NEW.kid) is not None
    assert publisher.asked == 1


async def test_an_unknown_key_id_asks_again_after_the_cooldown_only():
    clock, publisher = FakeClock(), Publisher(OLD)
    jwks = Jwks(publisher.fetch, clock)
    await jwks.refresh()
    publisher.keys = (OLD, NEW)
    assert await jwks.key(NEW.kid) is None
    assert publisher.asked == 1
    clock.advance(31)
    assert await jwks.key("forged") is None
    assert await jwks.key(NEW.kid) is not None
    assert publisher.asked == 2


async def test_ids_that_identity_does_not_know_are_not_asked_for_again():
    clock, publisher = FakeClock(), Publisher(OLD)
    jwks = Jwks(publisher.fetch, clock)
    await jwks.refresh()
    assert await jwks.key("forged") is None
    clock.advance(31)
    assert await jwks.key("forged") is None
    assert publisher.asked == 1


async def test_the_memory_of_unknown_ids_is_bounded():
    jwks = Jwks(Publisher(OLD).fetch, FakeClock())
    await jwks.refresh()
    for number in range(500):
        await jwks.key(f"forged-{number}")
    assert len(jwks._negative) == 128


async def test_many_unknown_ids_at_once_ask_once():
    publisher = Publisher(OLD)
    jwks = Jwks(publisher.fetch, FakeClock())
    await asyncio.gather(*(jwks.key(f"forged-{number}") for number in range(50)))
    assert publisher.asked == 1


async def test_a_set_that_grew_old_is_used_while_a_new_one_is_read():
    clock, publisher = FakeClock(), Publisher(OLD)
    jwks = Jwks(publisher.fetch, clock)
    await jwks.refresh()
    publisher.keys = (NEW,)
    clock.advance(301)
    assert await jwks.key(OLD.kid) is not None
    await jwks.refresh()
    assert await jwks.key(OLD.kid) is None


async def test_while_identity_is_away_the_last_set_is_used():
    clock, publisher = FakeClock(), Publisher(OLD)
    jwks = Jwks(publisher.fetch, clock)
    await jwks.refresh()
    publisher.away = True
    clock.advance(10_000)
    assert await jwks.key(OLD.kid) is not None
    await jwks.refresh()
    assert await jwks.key(OLD.kid) is not None


async def test_before_the_first_set_nothing_is_remembered_as_unknown():
    clock, publisher = FakeClock(), Publisher(OLD)
    publisher.away = True
    jwks = Jwks(publisher.fetch, clock)
    assert await jwks.key(OLD.kid) is None
    assert not jwks.loaded
    publisher.away = False
    clock.advance(1.1)
    assert await jwks.key(OLD.kid) is not None


async def test_a_set_told_by_an_event_is_used_at_once():
    jwks = Jwks(Publisher(OLD).fetch, FakeClock())
    await jwks.refresh()
    assert await jwks.key(NEW.kid) is None
    jwks.replace(jwks_of((NEW,)), version=2)
    assert await jwks.key(NEW.kid) is not None


async def test_a_replica_of_identity_that_is_behind_takes_no_key_back():
    publisher = Publisher(OLD)
    jwks = Jwks(publisher.fetch, FakeClock())
    jwks.replace(jwks_of((OLD, NEW)), version=2)
    await jwks.refresh()
    assert await jwks.key(NEW.kid) is not None
    publisher.keys, publisher.version = (NEW,), 3
    await jwks.refresh()
    jwks.replace(jwks_of((OLD, NEW)), version=2)
    assert await jwks.key(OLD.kid) is None


def test_keys_of_other_kinds_are_left_out():
    secret = {**OctKey.generate_key(256).as_dict(), "kid": "oct"}
    rsa = {**RSAKey.generate_key(2048, private=False).as_dict(), "kid": "rsa"}
    encryption = {**OLD.public_jwk, "kid": "enc", "use": "enc"}
    mixed = json.dumps({"keys": [secret, rsa, encryption, "x", OLD.public_jwk]})
    assert load_public_keys(mixed).keys() == {OLD.kid}


def test_a_private_key_in_a_set_is_read_as_public():
    private = json.dumps({"keys": [json.loads(OLD.private_jwk)]})
    assert not load_public_keys(private)[OLD.kid].is_private


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 1}', json.dumps({"keys": [OLD.public_jwk] * 33})])
def test_what_is_no_key_set_is_refused(text):
    with pytest.raises(KeyInvalid):
        load_public_keys(text)


@pytest.mark.parametrize(
    "text", ["", "[]", json.dumps(OLD.public_jwk), RSAKey.generate_key(2048).as_pem().decode()]
)
def test_what_is_no_signing_key_is_refused(text):
    with pytest.raises(KeyInvalid):
        load_signing_key(text)


def test_a_signing_key_is_the_same_after_it_was_stored():
    assert load_signing_key(OLD.private_jwk).public_jwk == OLD.public_jwk
