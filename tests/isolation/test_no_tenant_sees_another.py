from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from itertools import product

import grpc
import pytest
from prometheus_client import generate_latest

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.options.v1 import options_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_registry_pb2 as registry
from tlsy.tenancy.lint import lint
from tlsy.testkit.installation import connect

from . import faults, leaks, matrix
from .calls import BY_NAME, RPCS
from .names import REQUESTS, SHOW, event
from .world import until

pytestmark = pytest.mark.asyncio(loop_scope="session")
#: Codes of calls of which nobody decided whether they are allowed.
UNDECIDED = {"CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"}
ROLES = ("tlsy_tenant_registry", "tlsy_identity", "tlsy_ingestion", "tlsy_rules_engine")


async def test_there_is_a_request_of_every_rpc_in_the_descriptors():
    assert {rpc.name for rpc in RPCS} == REQUESTS.keys()
    assert len(BY_NAME) == len(RPCS)


async def test_twelve_tenants_live_in_three_modes(world):
    modes = Counter(tenant.mode for tenant in world.tenants.values())
    assert modes == {"SHARED": 6, "SCHEMA": 4, "DEDICATED": 2}


async def shown(world, rpc, tenant, replica=0):
    """What the tenant is shown of its own, which must hold its canary, or the search is blind."""
    request = REQUESTS[rpc](replace(tenant.names, page_tokens={}))
    own = world.may_see(tenant, BY_NAME[rpc].service)

    async def answered():
        answer = await world.client.ask(BY_NAME[rpc], request, tenant.tokens["client-admin"], replica)
        return None if answer.reason == "PLACEMENT_UNAVAILABLE" else answer

    answer = await until(answered)
    assert any(canary.encode() in answer.text for canary in own), (tenant.slug, answer)
    return answer.text


@pytest.mark.parametrize("rpc", sorted(SHOW))
async def test_a_tenant_is_shown_its_own_canary(world, rpc):
    for tenant in world.tenants.values():
        await shown(world, rpc, tenant)


async def test_an_ancestor_is_shown_the_names_of_its_children_and_nothing_else_of_them(world):
    group, child = world.tenants["group"], world.tenants["group-shared"]
    listing = registry.ListTenantsRequest()
    answer = await world.client.ask(BY_NAME["ListTenants"], listing, group.tokens["client-admin"])
    assert child.canaries.name.encode() in answer.text
    assert world.leaked(answer.text, world.may_see(group, "tenant-registry")) == []


async def test_no_answer_holds_anything_of_another_tenant(world):
    report = await matrix.run(world, seed=20260115)
    assert report.leaks == []
    assert report.let_in == []
    decided = {name for name, kind, code, _ in report.outcomes if kind == "foreign" and code not in UNDECIDED}
    assert decided == REQUESTS.keys()


async def test_what_is_no_name_is_refused_and_not_ignored(world):
    """Who wrote a name without its "tenants/" meant somebody, maybe another tenant than the token's."""
    tenant = world.tenants["group"]
    let_in, asked = [], set()
    for rpc in RPCS:
        request = REQUESTS[rpc.name](tenant.names.without_prefix())
        if rpc.scope == options_pb2.SCOPE_PUBLIC or request == REQUESTS[rpc.name](tenant.names):
            continue
        asked.add(rpc.name)
        answers = [await world.client.ask(rpc, request, token) for token in tenant.tokens.values()]
        let_in += [rpc.name for answer in answers if answer.code is grpc.StatusCode.OK]
    assert let_in == []
    assert asked >= {"IngestEvents", "GetUser", "ListRules", "ListTenants", "UpdateTenant"}


async def test_a_tail_shows_no_event_of_another_tenant(world):
    rpc, tenants = BY_NAME["TailEvents"], list(world.tenants.values())
    tails = []
    for number, tenant in enumerate(tenants):
        request = ingestion.TailEventsRequest(parent=tenant.names.tenant)
        tail = world.client.begin(rpc, request, tenant.tokens["operator"], number)
        await tail.read()
        tails.append(tail)
    for tenant in tenants:
        sent = [event(number, tenant.names.since_us + number, tenant.canaries.data) for number in (11, 12)]
        batch = ingestion.IngestEventsRequest(parent=tenant.names.tenant, events=sent)
        await world.client.get("IngestEvents", batch, tenant.tokens["agent"])

    for tenant, tail in zip(tenants, tails, strict=True):
        read = b""
        async with asyncio.timeout(60):
            while tenant.canaries.data.encode() not in read:
                read += (await tail.read()).SerializeToString()
        tail.cancel()
        assert world.leaked(read, world.may_see(tenant, "ingestion")) == []


async def test_nothing_leaks_while_calls_connections_and_a_replica_are_cut_off(world):
    replica = await world.suite.start_process("ingestion", {"TLSY_INGESTION_SHARD": "7"})
    trouble = await faults.endure(world, replica, seed=20260115)
    assert trouble.leaks == []
    happened = ("OK", "cancelled", "statement", "connection", "UNAVAILABLE")
    assert {what: trouble.ended[what] for what in happened if not trouble.ended[what]} == {}

    for replica, tenant in product(range(2), world.tenants.values()):
        for rpc in sorted(SHOW):
            text = await shown(world, rpc, tenant, replica)
            assert world.leaked(text, world.may_see(tenant, BY_NAME[rpc].service)) == []

    async def nothing_is_held():
        return not await faults.held(world)

    await until(nothing_is_held)


async def test_every_record_of_every_topic_holds_canaries_of_its_own_tenant_alone(world):
    by_id = {tenant.tenant_id: tenant for tenant in world.tenants.values()}
    owners: Counter[tuple[str, str]] = Counter()

    async def found():
        records = await leaks.records(world.suite.brokers)
        owners.clear()
        for record in records:
            owner = by_id.get(leaks.owner_of(record))
            text = leaks.text_of(record)
            allowed = frozenset({owner.canaries.data, owner.canaries.name}) if owner else frozenset()
            assert world.leaked(text, allowed) == [], (record.topic, record.headers)
            if owner is not None and owner.canaries.data.encode() in text:
                owners[record.topic, owner.slug] += 1
        topics = {topic for topic, _ in owners}
        return all((topic, slug) in owners for topic in topics for slug in world.tenants) and len(topics) > 1

    await until(found)


async def test_no_log_line_holds_personal_data_or_a_canary_of_another_tenant(world, log_lines):
    named: set[str] = set()

    async def every_tenant_is_named():
        for tenant in world.tenants.values():
            request = registry.GetTenantRequest(name="tenants/platform")
            tag = f"{tenant.slug}.refused"
            await world.client.ask(BY_NAME["GetTenant"], request, tenant.tokens["operator"], tag=tag)
        for line, _ in leaks.lines(log_lines.text):
            asked_by = str(line.get("request_id", "")).partition(".")[0]
            if asked_by in world.tenants and "tenant" in line:
                assert asked_by == line["tenant"], line
                named.add(asked_by)
        return named == world.tenants.keys()

    await until(every_tenant_is_named)
    for line, text in leaks.lines(log_lines.text):
        tenant = world.tenants.get(line.get("tenant"))
        allowed = frozenset({tenant.canaries.data, tenant.canaries.name}) if tenant else frozenset()
        assert world.leaked(text, allowed) == [], line


async def test_no_span_holds_what_a_tenant_sent_or_is_of_another_tenant(world, spans):
    by_name = {name: each for each in world.tenants.values() for name in (each.slug, str(each.tenant_id))}
    named: set[str] = set()

    async def every_tenant_is_named():
        for tenant in world.tenants.values():
            request = REQUESTS["ListRules"](replace(tenant.names, page_tokens={}))
            tag = f"{tenant.slug}.traced"
            await world.client.ask(BY_NAME["ListRules"], request, tenant.tokens["operator"], tag=tag)
        for span in spans.get_finished_spans():
            tenant = by_name.get(span.attributes.get("tlsy.tenant"))
            asked_by = str(span.attributes.get("tlsy.request_id", "")).partition(".")[0]
            if asked_by in world.tenants and tenant is not None:
                assert tenant.slug == asked_by, span.to_json()
                named.add(asked_by)
        return named == world.tenants.keys()

    await until(every_tenant_is_named)
    for span in spans.get_finished_spans():
        assert world.leaked(span.to_json().encode(), frozenset()) == [], span.to_json()


async def test_metrics_name_no_tenant(world):
    text = generate_latest(world.suite.telemetry.registry)
    assert b"tlsy_rpc_server_seconds_count" in text
    for tenant in world.tenants.values():
        for name in (tenant.slug, str(tenant.tenant_id), tenant.tenant_id.hex):
            assert f'"{name}"'.encode() not in text
    assert world.leaked(text, frozenset()) == []


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_without_a_context_reads_no_row_of_a_tenant(world, role):
    for place in await leaks.places(world):
        (rows,) = await leaks.rows_seen(world, role, place, ["select"])
        assert leaks.of_others(rows, world) == []


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_inside_one_tenant_reads_no_row_of_another(world, role):
    inside = [tenant for tenant in world.tenants.values() if tenant.mode != "DEDICATED"]
    seen = await rows_inside(world, role, world.suite.installation.common, inside)
    for tenant, rows in zip(inside, seen, strict=True):
        assert any(str(tenant.tenant_id) in row for _, row in rows)
        assert leaks.of_others(rows, world, tenant) == []


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_inside_one_tenant_reads_no_other_but_its_kin_in_the_control_database(world, role):
    """The catalogue says of a tenant who is above it, and tells a tenant who is below."""
    inside = list(world.tenants.values())
    seen = await rows_inside(world, role, world.suite.installation.control, inside)
    for tenant, rows in zip(inside, seen, strict=True):
        kin = [each for each in inside if tenant.slug == each.parent or each.slug == tenant.parent]
        assert any(str(tenant.tenant_id) in row for _, row in rows)
        assert leaks.of_others(rows, world, tenant, *kin) == []
        if role != "tlsy_tenant_registry":
            assert leaks.of_others(rows, world, tenant) == []


async def rows_inside(world, role, place, tenants):
    """All rows that a role sees in a database, inside each of these tenants."""
    owner = await connect(world.suite.installation.server.address(), place.database)
    try:
        fences = await owner.fetch("select tenant_id, epoch from tlsy.fence")
    finally:
        await owner.close()
    epochs = {row["tenant_id"]: row["epoch"] for row in fences}
    entrances = [
        f"call tlsy.enter('{tenant.tenant_id}', '{epochs[tenant.tenant_id]}', 'f')" for tenant in tenants
    ]
    return await leaks.rows_seen(world, role, place, entrances)


async def test_the_linter_finds_nothing_where_all_services_live(world):
    for place in await leaks.places(world):
        owner = await connect(world.suite.installation.server.address(), place.database)
        try:
            assert await lint(owner, world.suite.installation.schemas.services) == ()
        finally:
            await owner.close()
