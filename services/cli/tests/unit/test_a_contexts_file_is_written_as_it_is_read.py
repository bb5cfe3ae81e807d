from __future__ import annotations

import pytest

from tlsy.cli.domain.contexts import Context, ContextsFile, dump, parse
from tlsy.cli.domain.errors import UsageError

DOCUMENT = {
    "current": "embedded",
    "contexts": {
        "embedded": {
            "tenant": "platform",
            "addresses": {"identity": "unix:/run/i", "ingestion": "unix:/run/g"},
            "api_key_file": "bootstrap.key",
        },
        "prod": {"address": "edge:443", "user": "ada@acme.fr", "tls": {"ca_file": "ca.pem"}, "start": "go"},
        "open": {"address": "edge:443", "tls": {}},
    },
}


def test_reading_and_writing_are_inverse():
    assert dump(parse(DOCUMENT, "f")) == DOCUMENT


def test_one_address_stands_for_all_and_a_service_may_have_its_own():
    context = Context(name="c", addresses={"": "edge:443", "identity": "i:1"})
    assert (context.address("identity"), context.address("ingestion")) == ("i:1", "edge:443")


def test_a_missing_address_is_an_error_of_usage():
    with pytest.raises(UsageError):
        Context(name="c", addresses={"identity": "i:1"}).address("ingestion")


def test_every_problem_is_told():
    broken = {"current": "x", "more": 1, "contexts": {"a": {"tls": 1, "adress": "b"}, "b": []}}
    with pytest.raises(UsageError) as caught:
        parse(broken, "f")
    assert set(caught.value.details) == {
        "more: unknown member",
        "contexts.a.adress: unknown member",
        "contexts.a: needs address or addresses",
        "contexts.a.tls: must be a mapping",
        "contexts.b: must be a mapping",
        "contexts.b: needs address or addresses",
        "current: there is no context x",
    }


def test_the_first_context_is_in_use_at_once_and_a_later_one_is_not():
    known = ContextsFile().with_context(Context(name="a", addresses={"": "x"}))
    assert known.with_context(Context(name="b", addresses={"": "y"})).current == "a"
