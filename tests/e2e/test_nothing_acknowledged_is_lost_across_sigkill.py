from __future__ import annotations

from contextlib import aclosing

from .checks.sigkill import nothing_acknowledged_is_lost_and_nothing_counts_twice
from .killable import killable_suite
from .world import World


async def test_nothing_acknowledged_is_lost_and_nothing_counts_twice() -> None:
    async with killable_suite() as suite:
        await suite.start()
        async with aclosing(World(*await suite.ready(), suite.folder / "kept.json")) as world:
            await nothing_acknowledged_is_lost_and_nothing_counts_twice(world, suite, kills=2)
        assert suite.socket_folders() == 1
