from __future__ import annotations

from dataclasses import replace

from libs.eventlog.tests.world import event_of, note_of
from tlsy.eventlog.cloudevents import from_record


async def test_committed_rows_are_published_and_marked(world, tenant):
    await world.relaying()
    await world.publish(tenant, "a", "b")
    await world.published(tenant)
    assert [note_of(record.value) for record in await world.records()] == ["a", "b"]


async def test_a_record_says_of_which_tenant_and_epoch_its_row_is(world, tenant):
    await world.relaying()
    event = replace(event_of(tenant, "a"), epoch=7)
    await world.write(tenant, event)
    await world.published(tenant)
    (record,) = await world.records()
    told = from_record(record.headers, record.key, record.value)
    assert (told.id, told.tenant_id, told.epoch, told.time) == (event.id, event.tenant_id, 7, event.time)


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
