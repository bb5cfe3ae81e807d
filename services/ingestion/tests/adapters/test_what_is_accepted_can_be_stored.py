from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.ingestion.adapters.postgres.event_store import PostgresEventStore
from tlsy.ingestion.domain.events import TimeWindow, read_batch
from tlsy.runtime.clock import SystemClock

_numbers = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,6})?", fullmatch=True),
    st.builds(lambda digits, power: f"0.{'1' * digits}e-{power}", st.integers(1, 16_340), st.integers(0, 99)),
    st.builds(lambda digits: "9" * digits, st.integers(1, 16_340)),
)
_escapes = st.sampled_from(
    [r"\u0000", r"\\u0000", r"\ud800", r"\udc00", r"\ud83d\ude00", r"\x", "\x7f", "\ufffe", "\x01"]
)
_strings = st.lists(
    st.one_of(_escapes, st.text(max_size=5).map(lambda t: json.dumps(t)[1:-1])), max_size=4
).map(lambda parts: f'"{"".join(parts)}"')
_values = st.recursive(
    st.one_of(_numbers, _strings, st.sampled_from(["true", "null", "NaN", "01", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.builds(lambda key, value: f"{{{key}:{value}}}", _strings, inner),
    ),
    max_leaves=5,
)
_texts = st.text(max_size=20)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    documents=st.lists(st.builds(lambda key, value: f"{{{key}:{value}}}", _strings, _values), max_size=20),
    labels=st.dictionaries(_texts, _texts, max_size=3),
    source=_texts,
    depth=st.integers(0, 1_500),
)
async def test_the_database_takes_whatever_a_batch_accepts(installation, documents, labels, source, depth):
    now_us = int(SystemClock().now().timestamp() * 1_000_000)
    nested = f'{{"a":{"[" * depth}{"]" * depth}}}'
    events = [
        pb.Event(
            source=source.encode(errors="replace").decode(),
            id=str(number),
            time_us=now_us,
            type="host.cpu",
            labels=labels,
            data=document.encode(errors="surrogatepass"),
        )
        for number, document in enumerate([*documents, nested])
    ]
    rows = read_batch([each.SerializeToString() for each in events], TimeWindow(now_us, now_us)).rows
    if not rows:
        return
    connection = await installation.connect("tlsy_ingestion", installation.common)
    store = PostgresEventStore(0)
    async with connection.transaction():
        assert await store.refused(connection, rows) == []
    await connection.close()


@pytest.mark.parametrize("number", ["1e-16383", "1e308", "-1E+99", "0e-99", "1.5e-05", "1e9"])
async def test_what_is_accepted_is_read_again_with_about_its_own_size(installation, number):
    """The database writes a number out: one event of a few kilobytes may be many megabytes of digits."""
    now_us = int(SystemClock().now().timestamp() * 1_000_000)
    accepted = None
    for count in (1, 50, 160, 1_600, 3_200):
        data = f'{{"a":[{",".join([number] * count)}]}}'.encode()
        event = pb.Event(source="s", id="i", time_us=now_us, type="t", data=data).SerializeToString()
        accepted = data if read_batch([event], TimeWindow(now_us, now_us)).rows else accepted
    assert accepted is not None
    connection = await installation.connect("tlsy_ingestion", installation.common)
    assert await connection.fetchval("select length($1::text::jsonb::text)", accepted.decode()) < 50_000
    await connection.close()


async def test_the_database_names_the_rows_that_it_refuses(installation):
    row = (1, b"k", 0, "s", "i", "t", "", "", 2, None, "{}", None)
    bad = ['{"a":1e-20000}', r'{"a":"\u0000"}', "{"]
    rows = [row, *((*row[:11], data) for data in bad), (*row[:10], "[", None), (*row[:11], '{"a":1}')]
    connection = await installation.connect("tlsy_ingestion", installation.common)
    assert await PostgresEventStore(0).refused(connection, rows) == [1, 2, 3, 4]
