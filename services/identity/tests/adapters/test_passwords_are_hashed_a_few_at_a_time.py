from __future__ import annotations

import asyncio
import os
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from argon2.exceptions import HashingError

from tlsy.identity.adapters.argon2 import Argon2Passwords
from tlsy.identity.ports import PasswordsBusy
from tlsy.identity.settings import Argon2Cost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHEAP = Argon2Cost(memory_kib=64, passes=1, concurrency=1, queue=1)


@asynccontextmanager
async def started(cost: Argon2Cost) -> AsyncIterator[Argon2Passwords]:
    passwords = Argon2Passwords(cost, os.urandom)
    await passwords.start()
    yield passwords
    await passwords.stop(1)


async def test_the_right_password_verifies_and_no_other_one() -> None:
    async with started(CHEAP) as passwords:
        stored = await passwords.hash("correct horse")
        assert stored.startswith("$argon2id$")
        assert await passwords.verify(stored, "correct horse")
        assert not await passwords.verify(stored, "wrong horse")
        assert not await passwords.verify("no hash at all", "correct horse")


async def test_nothing_verifies_against_no_hash() -> None:
    async with started(CHEAP) as passwords:
        assert not await passwords.verify(None, "anything")


async def test_the_start_does_not_wait_for_what_unknown_users_are_checked_against() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return os.urandom(count)

    passwords = Argon2Passwords(CHEAP, random)
    await passwords.start()
    assert not asked
    assert not await passwords.verify(None, "anything")
    assert asked
    await passwords.stop(1)


async def test_costs_that_nothing_can_be_hashed_with_break_it() -> None:
    async with started(Argon2Cost(memory_kib=1, passes=1, concurrency=1, queue=1)) as passwords:
        with pytest.raises(HashingError):
            await passwords.wait()


async def test_more_than_may_wait_are_turned_away() -> None:
    async with started(CHEAP) as passwords:

        async def placed(slug: str) -> str:
            with passwords.place(slug) as place:
                return await place.hash("x")

        outcomes = await asyncio.gather(*(placed(slug) for slug in "abcde"), return_exceptions=True)
        assert isinstance(await placed("f"), str)
    assert sum(isinstance(outcome, PasswordsBusy) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 2


def hashing() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("argon2")}


async def test_no_more_are_hashed_at_once_than_there_are_threads_for() -> None:
    others = hashing()
    async with started(Argon2Cost(memory_kib=64, passes=1, concurrency=2, queue=9)) as passwords:
        await asyncio.gather(*(passwords.hash("x") for _ in range(9)))
        assert len(hashing() - others) == 2


async def test_the_only_place_that_there_is_one_tenant_may_have() -> None:
    async with started(Argon2Cost(memory_kib=64, passes=1, concurrency=1, queue=0)) as passwords:
        with passwords.place("acme") as place:
            assert await place.hash("x")
            with pytest.raises(PasswordsBusy), passwords.place("other"):
                pass


async def test_a_hash_of_other_costs_is_outdated() -> None:
    dearer = Argon2Cost(memory_kib=128, passes=1, concurrency=1, queue=1)
    async with started(CHEAP) as cheap, started(dearer) as dear:
        stored = await cheap.hash("password")
        assert dear.outdated(stored)
        assert not cheap.outdated(stored)


async def test_the_event_loop_goes_on_while_a_password_is_hashed() -> None:
    slow = Argon2Cost(memory_kib=65_536, passes=4, concurrency=1, queue=1)
    async with started(slow) as passwords:
        hashing = asyncio.create_task(passwords.hash("password"))
        turns = 0
        while not hashing.done():
            turns += 1
            await asyncio.sleep(0)
    assert turns > 10


@pytest.mark.parametrize("spelling", ["déjà vu", "de\u0301ja\u0300 vu"])
async def test_two_spellings_of_one_password_verify(spelling: str) -> None:
    async with started(CHEAP) as passwords:
        assert await passwords.verify(await passwords.hash("déjà vu"), spelling)
