from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from libs.eventlog.tests.world import event_of, note_down, until
from tlsy.contracts.events import EVENTS_ACCEPTED
from tlsy.eventlog.delivery import Batch, Each
from tlsy.runtime.logging import get_logger
from tlsy.runtime.tracing import ORIGIN

KEY = "tenants/acme/apiKeys/0b6d7a39-6a68-4d7c-8d61-000000000001"
ITSELF = "services/rules-engine"


@dataclass(frozen=True)
class Asked:
    principal: str | None
    correlation_id: str
    traceparent: str = ""


@contextmanager
def answering(principal, correlation_id):
    token = ORIGIN.set(Asked(principal, correlation_id))
    yield
    ORIGIN.reset(token)


@pytest.fixture
def told(world, tenant):
    """Who the handler is told of, and what it publishes in turn."""
    published = []

    async def handle(deliveries, tx):
        for delivery in deliveries:
            get_logger("shop").info("noting", of=[delivery.event.principal, delivery.event.correlation_id])
            await note_down(delivery, tx)
        published.append(tx.publish(replace(event_of(tenant, "in turn"), source="rules-engine")))

    world.routes = {EVENTS_ACCEPTED: Batch(handle)}
    return published


def causes(events):
    return [(event.principal, event.correlation_id) for event in events]


async def test_what_a_call_publishes_names_who_asked_and_for_what(world, tenant, told, log_lines):
    with answering(KEY, "r-1"):
        await world.publish(tenant, "a")
    await world.relaying()
    await world.consuming(world.routes)
    await world.noted(tenant, "a")
    (record,) = await world.records()
    headers = dict(record.headers)
    assert (headers["ce_principal"], headers["ce_requestid"]) == (KEY.encode(), b"r-1")
    (noting,) = log_lines.of("noting")
    assert (noting["principal"], noting["request_id"], noting["of"]) == (KEY, "r-1", [KEY, "r-1"])
    assert causes(told) == [(KEY, "r-1")]


@pytest.mark.parametrize("asked", [None, (None, "r-1")])
async def test_a_service_that_nobody_known_asked_names_itself(world, tenant, asked):
    if asked is None:
        await world.publish(tenant, "a")
    else:
        with answering(*asked):
            await world.publish(tenant, "a")
    await world.relaying()
    await world.published(tenant)
    (record,) = await world.records()
    assert dict(record.headers)["ce_principal"] == b"services/ingestion"
    assert dict(record.headers).get("ce_requestid") == (None if asked is None else b"r-1")


async def test_an_event_of_before_is_applied_and_what_follows_is_the_services_own(
    world, tenant, told, log_lines
):
    await world.publish(tenant, "a")
    owner = await world.installation.connect(None, tenant.placement)
    await owner.execute("update ingestion.outbox set principal = default, correlation_id = default")
    await world.relaying()
    await world.consuming(world.routes)
    await world.noted(tenant, "a")
    (record,) = await world.records()
    assert {"ce_principal", "ce_requestid"}.isdisjoint(dict(record.headers))
    (noting,) = log_lines.of("noting")
    assert (noting["principal"], noting["request_id"]) == ("", "")
    assert causes(told) == [(ITSELF, "")]


@pytest.mark.parametrize(
    ("second", "in_common"),
    [((KEY, "r-2"), (KEY, "")), (("users/2", "r-1"), (ITSELF, "r-1")), (("users/2", "r-2"), (ITSELF, ""))],
)
async def test_what_several_events_cause_names_what_they_have_in_common(
    world, tenant, told, second, in_common
):
    for note, (principal, correlation_id) in (("a", (KEY, "r-1")), ("b", second)):
        with answering(principal, correlation_id):
            await world.publish(tenant, note)
    await world.relaying()
    await world.published(tenant)
    await world.consuming(world.routes)
    await world.noted(tenant, "a", "b")
    assert causes(told) == [in_common]


async def test_a_record_that_names_too_much_is_refused(world, tenant):
    await world.send(replace(event_of(tenant, "a"), principal="p" * 257), event_of(tenant, "after"))
    await world.consuming({EVENTS_ACCEPTED: Each(note_down)})
    await world.noted(tenant, "after")

    async def refused():
        return world.metrics.dead_letters.labels("rules-engine")._value.get() == 1

    await until(refused)
