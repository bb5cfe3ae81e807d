from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from libs.rpc.tests.world import ACME, OTHER, World
from tlsy.contracts.ingestion.v1.ingestion_pb2 import Event, QueryEventsRequest
from tlsy.rpc.errors import Aborted, InvalidArgument, Violation
from tlsy.rpc.etags import check_etag, etag_of
from tlsy.rpc.masks import masked_fields
from tlsy.rpc.paging import Pages, fitting, page_size
from tlsy.rpc.resource_names import NamePattern
from tlsy.testkit.calls import public_call

if TYPE_CHECKING:
    from tlsy.rpc.call import Call

USER = NamePattern("tenants/{tenant}/users/{user}")
QUERY = QueryEventsRequest(parent="tenants/acme", source="agent/web-1", page_size=10)


@pytest.fixture
def call(directory) -> Call:
    method = "tlsy.ingestion.v1.IngestionService/QueryEvents"
    return replace(public_call(method), claims=World(directory).claims("viewer"))


def reason(raised):
    return raised.value.violations[0].reason


def test_a_token_leads_back_to_its_cursor(call):
    token = Pages(call, QUERY).token((5, "é"))
    following = QueryEventsRequest()
    following.CopyFrom(QUERY)
    following.page_token, following.page_size = token, 50
    place = Pages(call, following).place(token, (int, str), lambda number, text: {number: text})
    assert place == {5: "é"}


def test_the_first_page_has_no_cursor_and_the_last_no_token(call):
    pages = Pages(call, QUERY)
    assert (pages.place("", (int,), str), pages.token(None)) == (None, "")


def test_a_page_has_as_many_rows_as_an_answer_may_hold_and_at_least_one():
    small, large = Event(), Event(data=b"x" * 1_500_000)
    assert fitting([large, large, small, large], more=False) == ([large, large, small], True)
    assert fitting([small], more=True) == ([small], True)
    huge = Event(data=b"x" * 5_000_000)
    assert fitting([huge], more=False) == ([huge], False)


def test_a_token_of_another_query_is_refused(call):
    token = Pages(call, QUERY).token((5,))
    other = QueryEventsRequest(parent="tenants/acme", source="agent/web-2")
    with pytest.raises(InvalidArgument) as raised:
        Pages(call, other).place(token, (int,), str)
    assert (raised.value.reason, reason(raised)) == ("PAGE_TOKEN_MISMATCH", "PAGE_TOKEN_MISMATCH")


def test_a_token_of_another_tenant_or_method_is_refused(call):
    token = Pages(call, QUERY).token((5,))
    others = (
        replace(call, claims=replace(call.claims, tenant_id=OTHER)),
        replace(call, method="tlsy.ingestion.v1.IngestionService/TailEvents"),
    )
    for other in others:
        with pytest.raises(InvalidArgument):
            Pages(other, QUERY).place(token, (int,), str)
    assert call.tenant_id == ACME


@pytest.mark.parametrize("token", ["x", "AQ", "%%%", "é", "AA" * 200])
def test_what_is_no_token_is_refused(call, token):
    with pytest.raises(InvalidArgument):
        Pages(call, QUERY).place(token, (int,), str)


def test_a_token_of_another_version_is_refused(call):
    raw = base64.urlsafe_b64decode(Pages(call, QUERY).token((5, 55)) + "==")
    other = base64.urlsafe_b64encode(b"\x02" + raw[1:]).decode()
    with pytest.raises(InvalidArgument):
        Pages(call, QUERY).place(other, (int, int), range)


def made_up(pages, body):
    return base64.urlsafe_b64encode(b"\x01" + pages._digest(body) + body).decode()


@pytest.mark.parametrize("cursor", [("5",), (5, 5), (True,), (None,), {"a": 1}, [[5]]])
def test_a_cursor_of_another_shape_is_refused(call, cursor):
    pages = Pages(call, QUERY)
    with pytest.raises(InvalidArgument):
        pages.place(made_up(pages, json.dumps(cursor).encode()), (int,), str)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[" * 750, b"[NaN", b'["\\ud800"]', b'["a\\u0000b"]', b'["no uuid"]']
)
def test_a_cursor_that_nobody_was_given_is_refused(call, body):
    pages = Pages(call, QUERY)
    with pytest.raises(InvalidArgument) as raised:
        pages.place(made_up(pages, body), (str,), UUID)
    assert reason(raised) == "PAGE_TOKEN_MISMATCH"


def test_a_cursor_of_a_time_that_there_is_not_is_refused(call):
    pages = Pages(call, QUERY)
    with pytest.raises(InvalidArgument):
        pages.place(pages.token((10**30,)), (int,), lambda us: timedelta(microseconds=us))


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (-1, 100), (7, 7), (5000, 1000)])
def test_a_page_has_a_size(asked, given):
    assert page_size(asked) == given


def test_a_name_is_taken_apart_and_put_together():
    name = USER.format(tenant="acme", user="u-1")
    assert USER.parse(name) == {"tenant": "acme", "user": "u-1"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tenants/acme",
        "tenants/acme/users/",
        "tenants/acme/users/u/x",
        "/tenants/acme/users/u",
        "tenants/acme/keys/u",
        "tenants/../users/u",
        "tenants/acme/users/-",
        "tenants/acme/users/u\n",
        "tenants/acme/users/u u",
        "tenants/acme/users/ü",
        "tenants/acme/users/" + "u" * 129,
    ],
)
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(InvalidArgument) as raised:
        USER.parse(name, field="user.name")
    assert (raised.value.violations[0].field, reason(raised)) == ("user.name", "RESOURCE_NAME_INVALID")


@pytest.mark.parametrize("variables", [{}, {"tenant": "a", "user": "a/b"}, {"tenant": "a", "key": "b"}])
def test_a_name_cannot_be_put_together_wrongly(variables):
    with pytest.raises(ValueError, match="tenants/"):
        USER.format(**variables)


MAY_CHANGE = {"source", "type"}


def of_mask(*paths, **asked):
    """Which fields of a message, here an event, a mask names, and what is wrong with it."""
    wrong: list[Violation] = []
    fields = masked_fields(FieldMask(paths=paths), Event(**asked), MAY_CHANGE, wrong)
    return fields, [found.reason for found in wrong]


def test_a_mask_names_what_changes():
    assert of_mask("type", source="given, but not named") == ({"type"}, [])
    assert of_mask("*") == (MAY_CHANGE, [])


def test_every_unknown_path_of_a_mask_is_reported():
    assert of_mask("b", "type", "a.b")[1] == ["UPDATE_MASK_UNKNOWN_PATH"] * 2


def test_an_empty_mask_is_a_mistake():
    assert of_mask() == (frozenset(), ["UPDATE_MASK_EMPTY"])


def test_what_a_bad_mask_names_or_may_have_meant_is_still_judged():
    given = {"source": "given", "id": "given, but never changed"}
    assert of_mask("b", "type", **given)[0] == MAY_CHANGE
    assert of_mask(**given)[0] == {"source"}


def test_a_stale_etag_is_refused():
    resource = uuid4()
    check_etag("", etag_of(resource, 1))
    check_etag(etag_of(resource, 1), etag_of(resource, 1))
    with pytest.raises(Aborted, match="ETAG_MISMATCH"):
        check_etag(etag_of(resource, 1), etag_of(resource, 2))
