from __future__ import annotations

from datetime import timedelta

import grpc
import pytest

from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.eventlog.delivery import decode_record
from tlsy.rpc import admission
from tlsy.testkit.mutants import altered_module

from .code_guards import BelievesTokens, Issuer, ingestion_with, outcome_of, produced, producers_decoder, told
from .guards import INSERT, SQL_GUARDS, Scratch


@pytest.fixture
def killed(record_property):
    """Notes a mutant for the table that is printed at the end; one that nobody noticed fails the test."""

    def note(guard, layer, probe, noticed):
        record_property("mutant", [guard, layer, probe, noticed])
        assert noticed, f"nobody misses: {guard}"

    return note


@pytest.mark.parametrize("name", SQL_GUARDS)
async def test_a_guard_in_sql_is_missed_when_it_is_gone(installation, name, killed):
    guard = SQL_GUARDS[name]
    scratch = await Scratch.made(installation)
    assert await guard.holds(scratch)
    await guard.take_away(scratch)
    killed(name, guard.layer, guard.holds.__name__.replace("_", " "), not await guard.holds(scratch))


NAMES = ("if foreign is not None:", "if False:")
BINDING = (
    "tenant = await self._tenant(claims)",
    "tenant = self.catalog.by_slug(method.names.first(request).split('/')[1])",
)
KEY = (
    'if tenant_id is not None and not (text == tenant_id.hex or text.startswith(f"{tenant_id.hex}/")):',
    "if False:",
)
SOURCE = ("if TOPICS.get(event.source) != record.topic:", "if False:")
PERMISSION = ("if PERMISSION not in verified.grants.permissions(MODULE):", "if False:")


async def asked_for_anothers_events(installation, admission):
    issuer = Issuer()
    ours = await installation.provisioned_tenant(modules={"supervision"})
    theirs = await installation.provisioned_tenant(modules={"supervision"})
    owner = await installation.connect(None, installation.common)
    await owner.execute(INSERT.format("shared").replace("'s'", "'canary'"), theirs.tenant_id)
    request = ingestion_pb2.QueryEventsRequest(parent=f"tenants/{theirs.slug}")
    request.start_time.FromDatetime(issuer.clock.now() - timedelta(hours=1))
    request.end_time.FromDatetime(issuer.clock.now() + timedelta(hours=1))
    async with ingestion_with(admission, installation, issuer) as query:
        own = await query(issuer.token(theirs, "viewer"), request)
        assert b"canary" in own.text
        return await query(issuer.token(ours, "viewer"), request)


async def test_the_check_of_resource_names_is_missed_when_it_is_gone(installation, killed):
    real = await asked_for_anothers_events(installation, admission)
    assert real.reason == "CROSS_TENANT"
    mutant = await asked_for_anothers_events(installation, altered_module("tlsy.rpc.admission", *NAMES))
    assert b"canary" not in mutant.text
    answered = mutant.code is grpc.StatusCode.OK
    killed("resource-name check", "RPC", "another tenant's name is refused", answered)


async def test_the_binding_to_the_tokens_tenant_is_missed_when_it_is_gone(installation, killed):
    real = await asked_for_anothers_events(installation, admission)
    assert b"canary" not in real.text
    mutant = await asked_for_anothers_events(installation, altered_module("tlsy.rpc.admission", *BINDING))
    killed("token binding", "RPC", "only the token's tenant is read", b"canary" in mutant.text)


async def test_the_consumers_check_of_the_tenant_is_missed_when_it_is_gone(installation, killed):
    ours, theirs = [await installation.provisioned_tenant() for _ in range(2)]
    altered = altered_module("tlsy.eventlog.cloudevents", *KEY)

    async def gullible(record):
        return altered.from_record(record.headers, record.key, record.value)

    forged = told(theirs, key_of=ours)
    assert await outcome_of(told(ours, key_of=ours), decode_record, installation) == "applied"
    assert await outcome_of(forged, decode_record, installation) == "refused"
    mutant = await outcome_of(forged, gullible, installation)
    killed("consumer's tenant check", "topic", "a record under another's key is refused", mutant == "applied")


async def test_the_consumers_check_of_the_source_is_missed_when_it_is_gone(installation, killed):
    ours = await installation.provisioned_tenant()
    forged = told(ours, key_of=ours, source="identity")
    assert await outcome_of(forged, decode_record, installation) == "refused"
    altered = altered_module("tlsy.eventlog.delivery", *SOURCE)
    mutant = await outcome_of(forged, altered.decode_record, installation)
    killed("consumer's source check", "topic", "a foreign service's record is refused", mutant == "applied")


async def test_the_producers_credential_check_is_missed_when_it_is_gone(installation, killed):
    issuer, tenant = Issuer(), await installation.provisioned_tenant(modules={"supervision"})

    good, forged = (
        produced(issuer.token(tenant, "agent")),
        produced(issuer.token(tenant, "agent", forged=True)),
    )
    assert await outcome_of(good, producers_decoder(issuer.verifier()), installation) == "applied"
    assert await outcome_of(forged, producers_decoder(issuer.verifier()), installation) == "refused"
    mutant = await outcome_of(forged, producers_decoder(BelievesTokens()), installation)
    killed("producers' credential check", "topic", "a forged token is refused", mutant == "applied")

    weak = produced(issuer.token(tenant, "viewer"))
    assert await outcome_of(weak, producers_decoder(issuer.verifier()), installation) == "refused"
    altered = altered_module("tlsy.ingestion.consumers", *PERMISSION)
    mutant = await outcome_of(weak, producers_decoder(issuer.verifier(), altered), installation)
    killed("producers' permission check", "topic", "a reader's token is refused", mutant == "applied")
