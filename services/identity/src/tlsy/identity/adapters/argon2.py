"""Password hashes: argon2id, off the event loop, a few at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from tlsy.identity.domain.passwords import prepare
from tlsy.identity.ports import PasswordsBusy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tlsy.identity.settings import Argon2Cost


_R = TypeVar("_R")


class Argon2Passwords:
    """A component: argon2id in threads of its own (it releases the GIL), a few at once and some waiting.

    Who has a place waits for a thread without a limit of its own: places are few. One tenant has half of them
    at most: where its database is slow, they are kept for as long as that takes.

    Verifying against no hash computes one all the same, so that an unknown user takes as long as a wrong
    password. Not timing-exact: thread scheduling varies by more than what is left.
    """

    def __init__(self, cost: Argon2Cost, random: Callable[[int], bytes]) -> None:
        self._hasher = PasswordHasher(
            time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=1, type=Type.ID
        )
        self._threads = ThreadPoolExecutor(cost.concurrency, thread_name_prefix="argon2")
        self._room = asyncio.Semaphore(cost.concurrency)
        self._limit = cost.concurrency + cost.queue
        self._limit_of_tenant = max(1, self._limit // 2)
        self._inside: Counter[str] = Counter()
        self._random = random
        self._dummy = ""
        self._last_s = 0.0
        self._learning: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return "passwords"

    async def start(self) -> None:
        """Begin to learn how long a check takes; only who needs to know waits for it."""
        self._learning = asyncio.create_task(self._learn(), name=self.name)

    async def stop(self, grace_s: float) -> None:  # noqa: ARG002  a hash takes less than any grace
        """Let the threads end; hashes under way finish unread."""
        if self._learning is not None:
            self._learning.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def wait(self) -> None:
        """It breaks if there is no memory to hash with, and returns else."""
        if self._learning is not None:
            await asyncio.wait({self._learning})
            if not self._learning.cancelled():
                self._learning.result()

    @contextmanager
    def place(self, slug: str) -> Iterator[Argon2Passwords]:
        """See `Passwords.place`: as many as there are threads, and some who wait."""
        if self._inside.total() >= self._limit or self._inside[slug] >= self._limit_of_tenant:
            raise PasswordsBusy
        self._inside[slug] += 1
        try:
            yield self
        finally:
            self._inside[slug] -= 1
            if not self._inside[slug]:
                del self._inside[slug]

    async def hash(self, password: str) -> str:
        """See `PasswordPlace.hash`: a PHC string."""
        return await self._run(self._hasher.hash, prepare(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """See `PasswordPlace.verify`."""
        if not stored:
            await self._learned()
        right = await self._check(stored or self._dummy, password)
        return right and stored is not None

    async def pretend(self) -> None:
        """See `Passwords.pretend`."""
        await self._learned()
        await asyncio.sleep(self._last_s)

    def outdated(self, stored: str) -> bool:
        """Whether `stored` was made with other costs than today's."""
        return self._hasher.check_needs_rehash(stored)

    async def _learn(self) -> None:
        """Make the hash that unknown users are checked against, and check against it."""
        self._dummy = await self.hash(self._random(16).hex())
        await self._check(self._dummy, "")

    async def _learned(self) -> None:
        if self._learning is not None:
            await asyncio.wait({self._learning})

    async def _check(self, stored: str, password: str) -> bool:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        right = await self._run(self._verify, stored, prepare(password))
        self._last_s = loop.time() - begun
        return right

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[..., _R], *args: str) -> _R:
        async with self._room:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
