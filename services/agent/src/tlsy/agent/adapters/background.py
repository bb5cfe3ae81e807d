"""Blocking calls that may hang, such as looking up a name or asking a dead network disk for its size."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Background:
    """Runs each call in a thread of its own, so that none waits for another that hangs.

    Of one name only one call is under way: who asks meanwhile gets that one's result. So what hangs for hours
    holds one thread, however often it is asked for. The threads end with the process.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    async def run(self, name: str, call: Callable[[], T]) -> T:
        """What the call returns or raises. Who stops waiting does not stop the call."""
        future = self._under_way.get(name)
        if future is None:
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            # Before it is under way: a host that has no thread left now may have one next time.
            threading.Thread(target=_call, args=(call, future, loop), name=name[:50], daemon=True).start()
            self._under_way[name] = future
            future.add_done_callback(lambda done: self._over(name, done))
        result: T = await asyncio.shield(future)
        return result

    def _over(self, name: str, done: asyncio.Future[Any]) -> None:
        del self._under_way[name]
        if not done.cancelled():
            # Perhaps nobody waits any more; asked for, asyncio does not complain of that.
            done.exception()


def _call(call: Callable[[], T], future: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
    result, error = None, None
    try:
        result = call()
    except Exception as caught:  # noqa: BLE001 - raised where the result is waited for
        error = caught

    def tell() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # there is one where there is no error

    # The loop may be closed: nobody waits any more.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(tell)
