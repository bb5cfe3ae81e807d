from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from protovalidate import Validator

from libs.rpc.tests.world import ACME, SERVICES, bearer, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.contracts.ingestion.v1 import ingestion_pb2 as ingestion
from tlsy.contracts.options.v1 import options_pb2
from tlsy.rpc.errors import InvalidArgument
from tlsy.rpc.idempotency import answer_once
from tlsy.rpc.methods import ContractInvalid, RequestChecks, methods_of, request_hash


async def test_every_broken_rule_is_reported_at_once(world, client):
    request = identity.CreateUserRequest(parent="x" * 65, password="p" * 4097)
    error = await refused(client.identity.CreateUser(request, metadata=bearer(world.token("client-admin"))))
    assert isinstance(error, InvalidArgument)
    assert {(v.field, v.reason) for v in error.violations} == {
        ("parent", "STRING_MAX_LEN"),
        ("user", "REQUIRED"),
        ("password", "STRING_MAX_LEN"),
    }
    assert world.identity.calls == []


def test_a_path_names_the_element():
    checks = RequestChecks(identity.ExchangeApiKeyRequest.DESCRIPTOR, Validator())
    with pytest.raises(InvalidArgument) as raised:
        checks.check(identity.ExchangeApiKeyRequest(api_key="k", audience=["a", "b" * 41]))
    assert [violation.field for violation in raised.value.violations] == ["audience[1]"]


def test_a_batch_of_events_is_checked_without_its_events():
    checks = RequestChecks(ingestion.IngestEventsRequest.DESCRIPTOR, Validator())
    batch = [ingestion.Event(source="s")] * 10
    assert checks._ruled_part(ingestion.IngestEventsRequest(events=batch)).ByteSize() == 0
    with pytest.raises(InvalidArgument):
        checks.check(ingestion.IngestEventsRequest(parent="x" * 65, events=batch))


def test_a_request_is_large_only_as_a_batch_of_many():
    batches = RequestChecks(ingestion.IngestEventsRequest.DESCRIPTOR, Validator())
    large = ingestion.IngestEventsRequest(events=[ingestion.Event(data=b"x" * 500_000)] * 8)
    batches.check_size(large.SerializeToString())
    queries = RequestChecks(ingestion.QueryEventsRequest.DESCRIPTOR, Validator())
    many = ingestion.QueryEventsRequest(labels={str(number): "" for number in range(100_000)})
    with pytest.raises(InvalidArgument, match="REQUEST_TOO_LARGE"):
        queries.check_size(many.SerializeToString())


EVENT = b"x" * 600_000
LENGTH = b"\xc0\xcf\x24"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x12" + LENGTH + EVENT,
        b"\x0a\x03abc\x18\x96\x01\x21" + b"8" * 8 + b"\x25" + b"4" * 4 + b"\x12" + LENGTH + EVENT,
        b"\x12\x00" * 1000 + b"\x92\x80\x00" + LENGTH + EVENT,
        b"\x82\x01\x01x\x12" + LENGTH + EVENT,
        b"\x1b" + b"\x12" + LENGTH + EVENT + b"\x1c",
        b"\x12\x00" * 300_000,
    ],
)
def test_an_event_that_is_too_large_is_found_before_it_is_parsed(raw):
    checks = RequestChecks(ingestion.IngestEventsRequest.DESCRIPTOR, Validator())
    with pytest.raises(InvalidArgument, match="REQUEST_TOO_LARGE"):
        checks.check_size(raw)


def test_a_number_that_does_not_end_is_not_read_to_its_end():
    checks = RequestChecks(ingestion.IngestEventsRequest.DESCRIPTOR, Validator())
    before_s = time.process_time()
    checks.check_size(b"\xff" * 600_000)
    assert time.process_time() - before_s < 1


@pytest.mark.parametrize("raw", [b"\x12\xff", b"\x12\x80\x80\x20" + b"x"])
def test_what_is_no_message_is_left_to_the_parser(raw):
    RequestChecks(ingestion.IngestEventsRequest.DESCRIPTOR, Validator()).check_size(raw)


async def test_a_request_that_is_too_large_is_refused(world, client):
    request = identity.GetUserRequest(name="tenants/acme/users/" + "u" * 600_000)
    error = await refused(client.identity.GetUser(request, metadata=bearer(world.token("viewer"))))
    assert (type(error), error.reason) == (InvalidArgument, "REQUEST_TOO_LARGE")


async def test_a_request_of_somebody_unknown_is_small(client):
    good = "\U0001f525"  # whose four bytes are one of the characters that the rules count
    longest = identity.LogInRequest(tenant=good * 64, email=good * 254, password=good * 1024)
    await client.identity.LogIn(longest)
    many = identity.ExchangeApiKeyRequest(api_key="k", audience=["b" * 41] * 400)
    error = await refused(client.identity.ExchangeApiKey(many))
    assert (type(error), error.reason) == (InvalidArgument, "REQUEST_TOO_LARGE")


def test_the_same_body_has_the_same_hash_under_any_request_id():
    one = identity.CreateUserRequest(parent="tenants/acme", request_id=str(uuid4()))
    two = identity.CreateUserRequest(parent="tenants/acme", request_id=str(uuid4()))
    assert request_hash(one) == request_hash(two)
    two.password = "other"
    assert request_hash(one) != request_hash(two)
    assert one.request_id


async def test_the_call_carries_its_request_id_and_the_bodys_hash(world, client):
    request_id = uuid4()
    request = identity.CreateUserRequest(
        parent="tenants/acme", user=identity.User(email="a@b"), request_id=str(request_id)
    )
    await client.identity.CreateUser(request, metadata=bearer(world.token("client-admin")))
    call = world.identity.calls[0]
    assert (call.request_id, call.request_hash) == (request_id, request_hash(request))


async def test_a_request_id_that_is_no_uuid_is_refused(world, client):
    request = identity.CreateUserRequest(
        parent="tenants/acme", user=identity.User(email="a@b"), request_id="once"
    )
    error = await refused(client.identity.CreateUser(request, metadata=bearer(world.token("client-admin"))))
    assert [(v.field, v.reason) for v in error.violations] == [("request_id", "REQUEST_ID_INVALID")]


class ClaimedOnce:
    """What answer_once needs of a unit of work, in memory."""

    def __init__(self) -> None:
        self.stored: dict[object, bytes] = {}
        self.claimed: object = None

    async def replay(self, request) -> bytes | None:
        self.claimed = (request.principal, request.method, request.request_id)
        return self.stored.get(self.claimed)

    def remember(self, response: bytes) -> None:
        self.stored[self.claimed] = response


async def test_a_request_sent_again_is_answered_and_not_done_again(world, client):
    request = identity.CreateUserRequest(
        parent="tenants/acme", user=identity.User(email="a@b"), request_id=str(uuid4())
    )
    await client.identity.CreateUser(request, metadata=bearer(world.token("client-admin")))
    tx: Any = ClaimedOnce()
    call, done = world.identity.calls[0], []

    async def act() -> identity.User:
        done.append(1)
        return identity.User(name=f"users/{len(done)}")

    now = world.clock.now()
    answers = [await answer_once(tx, call, now, identity.User, act) for _ in range(2)]
    assert [answer.name for answer in answers] == ["users/1", "users/1"]
    assert done == [1]
    assert call.tenant_id == ACME


def service_with(**rules: Any):
    """A service whose one method declares these rules (None: none at all)."""
    pool = descriptor_pool.DescriptorPool()
    options_file = descriptor_pb2.FileDescriptorProto()
    options_pb2.DESCRIPTOR.CopyToProto(options_file)
    described = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
    described.message_type.add(name="M")
    method = described.service.add(name="S").method.add(name="Do", input_type=".x.M", output_type=".x.M")
    if rules:
        method.options.Extensions[options_pb2.rules].CopyFrom(options_pb2.Rules(**rules))
    return pool.AddSerializedFile(described.SerializeToString()).services_by_name["S"]


GOOD = {"scope": options_pb2.SCOPE_TENANT, "permission": "events.read", "audit": options_pb2.AUDIT_NONE}


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ({}, "declares no scope"),
        (GOOD | {"audit": 0}, "declares no audit level"),
        (GOOD | {"permission": "events.teleport"}, "which no role has"),
        (GOOD | {"permission": ""}, "which no role has"),
        (GOOD | {"module": "teleport"}, "which there is not"),
        (GOOD | {"scope": options_pb2.SCOPE_PUBLIC}, "is public and yet"),
    ],
)
def test_a_method_that_is_not_well_declared_is_not_served(rules, problem):
    with pytest.raises(ContractInvalid, match=problem):
        methods_of(service_with(**rules), Validator())


def test_a_method_that_is_well_declared_is_served():
    assert methods_of(service_with(**GOOD), Validator()).keys() == {"/x.S/Do"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_all_methods_of_the_suite_are_well_declared(name):
    assert methods_of(SERVICES[name][0], Validator())
