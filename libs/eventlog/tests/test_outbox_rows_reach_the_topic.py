from __future__ import annotations

from libs.eventlog.tests.world import note_of


async def test_committed_rows_are_published_and_marked(world, tenant):
    await world.relaying()
    await world.publish(tenant, "a", "b")
    await world.published(tenant)
    assert [note_of(record.value) for record in await world.records()] == ["a", "b"]


async def test_rows_of_every_database_are_published(world, tenant, dedicated):
    await world.relaying()
    await world.publish(tenant, "common")
    await world.publish(dedicated, "dedicated")
    await world.published(tenant)
    await world.published(dedicated)
    assert {note_of(record.value) for record in await world.records()} == {"common", "dedicated"}


async def test_an_effect_happens_once(world, tenant):
    await world.relaying()
    await world.consuming()
    await world.publish(tenant, "a", "b", "c")
    await world.noted(tenant, "a", "b", "c")
