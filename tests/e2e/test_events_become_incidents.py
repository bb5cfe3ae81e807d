from __future__ import annotations

from typing import TYPE_CHECKING

from .checks.incidents import events_become_incidents

if TYPE_CHECKING:
    from .world import World


async def test_events_become_incidents(world: World) -> None:
    await events_become_incidents(world)
