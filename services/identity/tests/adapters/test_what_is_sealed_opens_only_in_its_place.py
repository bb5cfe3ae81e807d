from __future__ import annotations

import os
from uuid import UUID

import pytest

from tlsy.identity.adapters.sealing import LookupHash, SealBroken, Sealer

TENANT, OTHER = UUID(int=1), UUID(int=2)
KEYS = {"k1": os.urandom(32), "k2": os.urandom(32)}


def test_a_value_opens_where_it_was_sealed_and_shows_nothing() -> None:
    sealed = Sealer(KEYS, "k1", os.urandom).seal(TENANT, "users", "email", "ada@example.org")
    assert b"ada" not in sealed
    assert Sealer(KEYS, "k2", os.urandom).open(TENANT, "users", "email", sealed) == "ada@example.org"


@pytest.mark.parametrize(
    ("tenant", "table", "column"),
    [(OTHER, "users", "email"), (TENANT, "api_keys", "email"), (TENANT, "users", "display_name")],
)
def test_a_value_moved_to_another_place_does_not_open(tenant: UUID, table: str, column: str) -> None:
    sealer = Sealer(KEYS, "k1", os.urandom)
    sealed = sealer.seal(TENANT, "users", "email", "ada@example.org")
    with pytest.raises(SealBroken):
        sealer.open(tenant, table, column, sealed)


def test_a_changed_value_and_one_of_an_unknown_key_do_not_open() -> None:
    sealer = Sealer(KEYS, "k1", os.urandom)
    sealed = sealer.seal(TENANT, "users", "email", "ada@example.org")
    stranger = Sealer({"k9": os.urandom(32)}, "k9", os.urandom).seal(TENANT, "users", "email", "x")
    for broken in (sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1]), b"", b"\x01", stranger):
        with pytest.raises(SealBroken):
            sealer.open(TENANT, "users", "email", broken)


def test_one_address_has_another_hash_in_another_tenant_and_under_another_key() -> None:
    lookup = LookupHash(KEYS["k1"])
    hashes = {
        lookup(TENANT, "ada@example.org"),
        lookup(OTHER, "ada@example.org"),
        LookupHash(KEYS["k2"])(TENANT, "ada@example.org"),
    }
    assert len(hashes) == 3
    assert lookup(TENANT, "ada@example.org") in hashes
