from __future__ import annotations

import grpc
import pytest

from libs.rpc.tests.world import bearer, refused
from tlsy.contracts.identity.v1 import identity_pb2 as identity
from tlsy.rpc import errors
from tlsy.rpc.errors import InvalidArgument, Permanent, Retryable, ServiceError, Violation
from tlsy.tenancy import errors as tenancy
from tlsy.tenancy.context import Placement
from tlsy.testkit.logs import recorded_logs

REQUEST = identity.GetUserRequest(name="tenants/acme/users/u")
DATABASE = Placement("eu-1", "t_secret", "tenant")

KINDS = [
    errors.NotFound,
    errors.AlreadyExists,
    errors.FailedPrecondition,
    errors.OutOfRange,
    errors.PermissionDenied,
    errors.Unauthenticated,
    errors.Unimplemented,
    errors.Aborted,
    errors.Internal,
    errors.ResourceExhausted,
    errors.Unavailable,
    errors.DeadlineExceeded,
]


async def answer_of(world, client, error: Exception) -> ServiceError:
    async def fail() -> None:
        raise error

    world.identity.act = fail
    return await refused(client.identity.GetUser(REQUEST, metadata=bearer(world.token("client-admin"))))


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_arrives_as_itself(world, client, kind):
    sent = kind("SOME_REASON", "What to do.", metadata={"a": "b"}, retry_after_s=1.5)
    told = await answer_of(world, client, sent)
    assert type(told) is kind
    assert (told.reason, told.message, told.metadata) == ("SOME_REASON", "What to do.", {"a": "b"})
    assert (told.retry_after_s, told.domain) == (1.5, "tlsy.identity")


async def test_all_violations_arrive(world, client):
    violations = (Violation("a.b", "TOO_LONG", "must be short"), Violation("c", "MISSING", "must be there"))
    told = await answer_of(world, client, InvalidArgument(violations=violations))
    assert (type(told), told.violations) == (InvalidArgument, violations)


@pytest.mark.parametrize("description", ["d" * 400, "é" * 400])
async def test_as_many_violations_arrive_as_fit(world, client, description):
    """In metadata as any client takes it, by default 8 KiB."""
    violations = [Violation(f"rule.when.all[{n}].value", "FIELD_UNKNOWN", description) for n in range(50)]
    for _ in range(10):
        told = await answer_of(world, client, InvalidArgument(violations=violations))
        assert (type(told), told.reason) == (InvalidArgument, "REQUEST_INVALID")
        assert len(told.violations) + int(told.metadata[errors.LEFT_OUT_KEY]) == 50
        assert [v.field for v in told.violations] == [v.field for v in violations[: len(told.violations)]]
        assert len(told.violations) >= 7


@pytest.mark.parametrize("message", ["é" * 2000, "%" * 2000, "m" * 2000, "\U0001f525" * 2000])
async def test_a_long_message_is_cut(world, client, message):
    told = await answer_of(world, client, errors.FailedPrecondition("X", message))
    assert (type(told), told.reason) == (errors.FailedPrecondition, "X")
    assert told.message
    assert message.startswith(told.message)


async def test_a_request_that_cannot_be_read_is_answered_measured_and_logged(world, client, log_lines):
    known = bearer(world.token("client-admin", "viewer"))
    send = client.channel.unary_unary("/tlsy.identity.v1.IdentityService/GetUser")
    told = await refused(send(b"\x0a\x01\xff", metadata=known))
    assert (type(told), told.reason) == (InvalidArgument, "REQUEST_UNREADABLE")
    tail = client.channel.unary_stream("/tlsy.ingestion.v1.IngestionService/TailEvents")
    assert (await refused(tail(b"\xff", metadata=known).read())).reason == "REQUEST_UNREADABLE"
    sample = world.host.telemetry.registry.get_sample_value
    assert sample("tlsy_rpc_server_refused_total", {"reason": "REQUEST_UNREADABLE"}) == 2
    assert {line["reason"] for line in log_lines if line["event"] == "call refused"} == {"REQUEST_UNREADABLE"}


async def test_defects_do_not_flood_the_log(world, client, log_lines):
    for _ in range(200):
        await answer_of(world, client, RuntimeError("again"))
    seconds = {line["time"][:19] for line in log_lines}
    assert sum(line["event"] == "call failed" for line in log_lines) <= 50 * (len(seconds) + 1)


def test_what_may_be_sent_again_is_a_type():
    retryable = {kind for kind in KINDS if issubclass(kind, Retryable)}
    assert retryable == {errors.ResourceExhausted, errors.Unavailable, errors.DeadlineExceeded}
    assert all(issubclass(kind, Permanent) for kind in set(KINDS) - retryable)


def test_who_is_over_a_limit_that_passes_is_told_when_to_send_again():
    with pytest.raises(TypeError, match="retry_after_s"):
        errors.ResourceExhausted("RATE_LIMITED", "Too fast.")  # type: ignore[call-arg]  # what this refuses


async def test_an_unknown_error_says_nothing_of_what_happened(world, client, log_lines):
    told = await answer_of(world, client, RuntimeError("password of t_secret is hunter2"))
    assert (type(told), told.reason) == (errors.Internal, "INTERNAL")
    assert "hunter2" not in str(told)
    failed = next(line for line in log_lines if line["event"] == "call failed")
    assert "RuntimeError" in failed["exception"]
    assert (failed["tenant"], failed["principal"]) == ("acme", world.claims().principal)


async def test_a_defect_is_reported_with_whose_call_it_was(world, client):
    reported = []
    defect = RuntimeError("broken")
    with recorded_logs(report=lambda error, line: reported.append((error, line))):
        await answer_of(world, client, defect)
        await answer_of(world, client, errors.NotFound("X", "Nothing."))
    ((error, line),) = reported
    assert error is defect
    assert line["tenant"] == "acme"
    assert line["request_id"]


@pytest.mark.parametrize(
    ("raised", "kind", "reason"),
    [
        (tenancy.NotWritable(), errors.FailedPrecondition, "NOT_WRITABLE"),
        (tenancy.StaleEpoch(), errors.Unavailable, "STALE_EPOCH"),
        (tenancy.PlacementUnavailable(DATABASE, "down"), errors.Unavailable, "PLACEMENT_UNAVAILABLE"),
        (
            tenancy.PlacementUnavailable(DATABASE, "lost", outcome_unknown=True),
            errors.Unavailable,
            "OUTCOME_UNKNOWN",
        ),
        (tenancy.DatabaseBusy(DATABASE, "deadlock"), errors.Unavailable, "DATABASE_BUSY"),
        (tenancy.LeaseLost(), errors.Unavailable, "LEASE_LOST"),
        (tenancy.UnknownTenant("x"), errors.NotFound, "UNKNOWN_TENANT"),
        (tenancy.CatalogUnavailable("x"), errors.Unavailable, "CATALOG_UNAVAILABLE"),
        (tenancy.TenantNotUnderstood("x"), errors.Unavailable, "TENANT_NOT_UNDERSTOOD"),
        (tenancy.RequestIdReused("x"), errors.InvalidArgument, "REQUEST_ID_REUSED"),
        (tenancy.UnknownCluster("x"), errors.Internal, "INTERNAL"),
    ],
)
async def test_tenancys_errors_have_a_code(world, client, raised, kind, reason):
    told = await answer_of(world, client, raised)
    assert (type(told), told.reason) == (kind, reason)
    assert "t_secret" not in told.message
    assert (told.retry_after_s is not None) == issubclass(kind, Retryable)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_a_peer_that_is_away_or_going_makes_the_call_retryable(world, client, code):
    away = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
    told = await answer_of(world, client, away)
    assert (type(told), told.reason) == (errors.Unavailable, "PEER_UNAVAILABLE")


async def test_a_peers_refusal_that_nobody_expected_is_a_defect(world, client):
    metadata = grpc.aio.Metadata()
    no = grpc.aio.AioRpcError(grpc.StatusCode.PERMISSION_DENIED, metadata, metadata, "you may not")
    told = await answer_of(world, client, no)
    assert (type(told), told.message.count("may not")) == (errors.Internal, 0)


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_details_that_are_none_leave_the_code(code):
    trailing = grpc.aio.Metadata((errors.STATUS_KEY, b"\xff"))
    raised = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "gone")
    told = ServiceError.from_rpc_error(raised)
    assert (told.code, told.reason) == (code, code.name)


async def test_a_status_that_grpc_made_itself_has_its_code_as_reason(world, client):
    call = client.channel.unary_unary("/tlsy.identity.v1.IdentityService/Nothing")
    told = await refused(call(b""))
    assert (type(told), told.reason) == (errors.Unimplemented, "UNIMPLEMENTED")
