"""The limits of the agent's file are those of ingestion: what passes one passes the other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tlsy.agent.domain.readings import Origin, Reading, to_event
from tlsy.agent.settings import Settings
from tlsy.ingestion.domain.events import TimeWindow, read_batch

LEAST = {
    "endpoints": {"identity": "i", "ingestion": "i"},
    "api_key_file": "/k",
    "buffer": {"directory": "/b"},
}
AROUND = TimeWindow(0, 10)


def lengths(*limits):
    """Texts around the limits, in characters of one to four bytes, some with a NUL."""
    near = st.sampled_from([n + d for n in limits for d in (-1, 0, 1, 4)])
    text = st.builds(
        lambda letter, size: letter * (size // len(letter.encode())), st.sampled_from("aé€😀"), near
    )
    return st.one_of(text, st.builds(lambda short: short[:7] + "\0", text), st.text(max_size=8))


@settings(deadline=None)
@given(lengths(200, 100), lengths(100, 64), st.dictionaries(lengths(64), lengths(256), max_size=3))
def test_the_file_takes_what_ingestion_takes(source, site, labels):
    event = to_event(
        Reading(type="host.cpu", subject="all", value=1),
        Origin(source=source, site=site, labels=labels),
        "1",
        5,
    )
    try:
        Settings.model_validate({**LEAST, "source": source, "site": site, "labels": labels})
    except ValidationError:
        taken = False
    else:
        taken = True
    assert taken == (not read_batch([event.SerializeToString()], AROUND).problems)


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_a_host_calls_its_things_ingestion_takes(subject, value):
    reading = Reading(
        type="host.disk", subject=subject + "\udcff", value=1, labels={"device": value + "\udcff"}
    )
    event = to_event(reading, Origin(source="a", site="", labels={}), "1", 5)
    assert not read_batch([event.SerializeToString()], AROUND).problems


@pytest.mark.parametrize(
    "url",
    ["http://ada:secret@h/", "http://h:99999/", "http://:80/", "http://h/a b", "ftp://h/", "http://h:0/"],
)
def test_an_address_that_cannot_be_asked_or_holds_a_secret_is_refused(url):
    probe = {"name": "x", "url": url}
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({**LEAST, "http": [probe]})
    assert [problem["loc"] for problem in caught.value.errors()] == [("http", 0, "url")]
