from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time

import pytest

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.rpc.errors import FailedPrecondition, PermissionDenied, Unauthenticated, Unavailable
from tlsy.testkit.terminal import screen


def taken(request):
    return pb.IngestEventsResponse(outcomes=[pb.OUTCOME_ACCEPTED] * len(request.events))


@pytest.fixture
def ingestion(stand_in):
    stand_in.answers["IngestEvents"] = taken
    return stand_in


def sent(stand_in):
    return [
        event for each in stand_in.asked if each.method == "IngestEvents" for event in each.request.events
    ]


async def test_one_event_is_sent_from_options(tlsy, ingestion):
    line = "events send --type host.cpu --value 4.5 --severity warning -l host=a --time 2026-01-01"
    result = await tlsy(*line.split(), "-o", "json")
    (event,) = sent(ingestion)
    assert (event.type, event.value, event.severity, event.labels) == ("host.cpu", 4.5, 3, {"host": "a"})
    assert (event.source, event.time_us) == ("tlsy", 1_767_225_600_000_000)
    assert event.id
    assert result.json[0] == {"outcome": "ACCEPTED", "events": 1}


@pytest.mark.parametrize("options", ["--subject oven --value 0", "--time 1h", "-l a=b", "--id 1"])
async def test_options_of_an_event_without_its_type_are_not_dropped(tlsy, ingestion, options):
    result = await tlsy("events", "send", *options.split(), stdin='{"type": "a.b"}')
    assert (result.code, sent(ingestion)) == (2, [])
    first = {"-l": "--label"}.get(options.split()[0], options.split()[0])
    assert first in result.err
    assert "without --type" in result.err


async def test_who_sends_nothing_is_told_so(tlsy, ingestion):
    result = await tlsy("events", "send", stdin="")
    assert (result.code, "There was no event on standard input." in result.err) == (0, True)


async def test_events_of_standard_input_are_sent_in_batches(tlsy, ingestion):
    lines = [json.dumps({"type": "a.b", "id": str(n), "data": {"n": n}}) for n in range(1200)]
    result = await tlsy("events", "send", "--source", "me", stdin="\n".join([*lines, "", ""]))
    assert result.code == 0
    assert [event.id for event in sent(ingestion)] == [str(n) for n in range(1200)]
    assert sent(ingestion)[7].data == b'{"n":7}'
    assert ingestion.methods().count("IngestEvents") == 3


async def test_deferred_events_are_sent_again_and_rejected_ones_told(tlsy, stand_in):
    first = pb.IngestEventsResponse(
        outcomes=[pb.OUTCOME_DEFERRED, pb.OUTCOME_REJECTED, pb.OUTCOME_DUPLICATE],
        rejections=[pb.Rejection(index=1, reason="TIME_TOO_OLD", field="time_us", message="40 days old")],
    )
    first.retry_after.FromMilliseconds(50)
    stand_in.answers["IngestEvents"] = [first, pb.IngestEventsResponse(outcomes=[pb.OUTCOME_ACCEPTED])]
    lines = [json.dumps({"type": "a.b", "source": "s", "id": name}) for name in "abc"]
    result = await tlsy("events", "send", "-o", "json", stdin="\n".join(lines))
    assert result.code == 1
    assert [row["events"] for row in result.json] == [1, 1, 1]
    assert "line 2: s b: TIME_TOO_OLD time_us: 40 days old" in result.err
    assert "1 of 3 event(s) rejected; the others are stored." in result.err
    assert [event.id for event in sent(stand_in)] == ["a", "b", "c", "a"]


async def test_a_line_that_is_no_event_is_named(tlsy, ingestion):
    result = await tlsy("events", "send", stdin='{"type": "a.b"}\n{"typo": 1}\n')
    assert result.code == 2
    assert "Line 2 is not an event" in result.err
    assert "0 events are stored for certain. Go on from line 1:" in result.err


async def test_a_failure_on_the_way_tells_what_is_stored_and_where_to_go_on(tlsy, stand_in):
    first = pb.IngestEventsResponse(outcomes=[pb.OUTCOME_ACCEPTED] * 499)
    second = pb.IngestEventsResponse(outcomes=[pb.OUTCOME_ACCEPTED] * 6 + [pb.OUTCOME_DEFERRED] * 494)
    stand_in.answers["IngestEvents"] = [first, second, FailedPrecondition("QUOTA_EXCEEDED", "No more.")]
    lines = [json.dumps({"type": "a.b", "id": str(n)}) for n in range(1, 1201)]
    # A line that is empty counts as one all the same.
    result = await tlsy("events", "send", stdin="\n".join(["", *lines]))
    assert (result.code, result.out) == (1, "")
    assert "505 events are stored for certain. Go on from line 507:" in result.err
    assert "QUOTA_EXCEEDED" in result.err


async def test_a_line_of_another_encoding_is_told(tlsy, ingestion):
    result = await tlsy("events", "send", stdin=b'{"type": "a.b"}\n{"type": "\xe9"}\n')
    assert result.code == 2
    assert "Line 2 of standard input is not UTF-8" in result.err
    assert "iconv" in result.err


async def test_a_tail_is_a_line_an_event_and_tells_what_was_missed(tlsy, stand_in):
    event = pb.Event(
        source="s",
        id="1",
        time_us=1_767_225_600_000_000,
        type="host.cpu",
        value=3,
        severity=pb.SEVERITY_ERROR,
    )
    stand_in.answers["TailEvents"] = [
        pb.TailEventsResponse(events=[event]),
        pb.TailEventsResponse(events=[event], missed=9),
    ]
    result = await tlsy("events", "tail")
    header = ["TIME", "SEVERITY", "TYPE", "SOURCE", "SUBJECT", "VALUE", "LABELS"]
    assert result.out.splitlines()[0].split() == header
    assert [line.split() for line in result.out.splitlines()[1:]] == [
        ["2026-01-01T00:00:00.000Z", "ERROR", "host.cpu", "s", "3"]
    ] * 2
    assert "9 events are not shown" in result.err
    lines = (await tlsy("events", "tail", "-o", "json")).out.splitlines()
    assert [json.loads(line)["timeUs"] for line in lines] == ["1767225600000000"] * 2


@pytest.fixture
async def narrow_screen():
    with screen(columns=60) as of_60_columns:
        yield of_60_columns


async def test_a_tail_on_a_narrow_screen_is_a_line_an_event(tlsy, stand_in, narrow_screen):
    events = [
        pb.Event(source="agent/a-host", id="1", time_us=1_767_225_600_000_000, type=type_, subject="sda " * n)
        for n, type_ in enumerate(["host.cpu", "host.disk.used", "host.disk.used"])
    ]
    stand_in.answers["TailEvents"] = [pb.TailEventsResponse(events=events)]
    its, shown = narrow_screen
    environ = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tlsy.cli", "events", "tail", stdout=its, stderr=asyncio.subprocess.PIPE,
        env={**environ, "TLSY_CONFIG": str(tlsy.config), "TERM": "xterm", "NO_COLOR": "1"},
    )  # fmt: skip
    async with asyncio.timeout(60):
        _, err = await process.communicate()
        while shown.count(b"\n") < 4:
            await asyncio.sleep(0.01)
    header, *lines = re.sub("\x1b\\[[0-9;]*m", "", shown.decode()).splitlines()
    assert (process.returncode, header.split()[:3]) == (0, ["TIME", "SEVERITY", "TYPE"])
    assert [line.split()[1] for line in lines] == ["host.cpu", "host.disk.used", "host.disk.used"]
    assert all(len(line) <= 60 for line in (header, *lines))
    assert b"No room here for" in err


def two_tails():
    """Of an event each, longer than what ends at once; a third one is refused."""
    events = iter([pb.Event(source="s", id="1", type="a.b"), pb.Event(source="s", id="2", type="a.b")])

    async def until_it_ends(event):
        ends_at = time.monotonic() + 1.1
        yield pb.TailEventsResponse(events=[event])
        while time.monotonic() < ends_at:
            await asyncio.sleep(0.01)

    def tail(_):
        event = next(events, None)
        return PermissionDenied("ENOUGH", "Enough.") if event is None else until_it_ends(event)

    return tail


@pytest.mark.parametrize(
    "ends_with",
    [
        Unauthenticated("TOKEN_EXPIRED", "The token has ended."),
        Unavailable("SERVER_STOPPING", "This server is going away; begin again.", retry_after_s=0.2),
    ],
    ids=lambda error: error.reason,
)
async def test_a_tail_goes_on_with_a_new_token_when_its_own_or_its_server_has_ended(
    tlsy, stand_in, ends_with
):
    """The stand-in's tokens last for less than the client keeps one: each connection gets its own."""
    stand_in.lifetime_s = 10
    stand_in.answers["TailEvents"] = two_tails()
    stand_in.ends_with = ends_with
    result = await tlsy("events", "tail", "-o", "json")
    assert [json.loads(line)["id"] for line in result.out.splitlines()] == ["1", "2"]
    assert "ENOUGH" in result.err
    assert stand_in.methods().count("ExchangeApiKey") > 1


@pytest.mark.parametrize("there", [(), ("--context", "c", "--tenant", "child")])
async def test_a_tail_that_may_have_missed_events_says_how_to_find_them_and_goes_on(tlsy, stand_in, there):
    since = "2026-01-01T00:00:00Z"
    stand_in.answers["TailEvents"] = two_tails()
    stand_in.ends_with = Unavailable(
        "TAIL_INTERRUPTED", "Lost.", metadata={"since": since}, retry_after_s=1.0
    )
    result = await tlsy("events", "tail", "--type", "a.b", "-l", "host=b c", "-o", "json", *there)
    assert [json.loads(line)["id"] for line in result.out.splitlines()] == ["1", "2"]
    query = " ".join(["tlsy", *there, "events query --since", since, "--type a.b --label 'host=b c'"])
    assert result.err.count(query) == 2
    assert result.err.count("came late") == 2


async def test_a_tail_that_a_new_token_does_not_prolong_ends(tlsy, stand_in):
    stand_in.answers["TailEvents"] = lambda _: Unauthenticated("TOKEN_EXPIRED", "The token has ended.")
    result = await tlsy("events", "tail")
    assert (result.code, stand_in.methods().count("TailEvents")) == (4, 1)


async def test_a_record_that_was_refused_is_shown_with_its_reasons(tlsy, stand_in):
    refused = [pb.Rejection(index=n, reason="TIME_TOO_OLD", message="40 days old") for n in (0, 1)]
    refused.append(pb.Rejection(index=2, reason="SOURCE_INVALID", message="is empty"))
    outcome = pb.IngestOutcome(partition=3, offset=9, accepted=4, rejected=3, rejections=refused)
    stand_in.answers["ListIngestOutcomes"] = pb.ListIngestOutcomesResponse(outcomes=[outcome])
    shown = (await tlsy("events", "outcomes")).out
    assert "TIME_TOO_OLD, SOURCE_INVALID" in shown
    assert "40 days old, is empty" in shown
    assert len((await tlsy("events", "outcomes", "-o", "json")).json[0]["rejections"]) == 3


async def test_a_record_that_was_refused_whole_shows_no_counts_of_events_that_nobody_read(tlsy, stand_in):
    refused = [pb.Rejection(reason="KAFKA_PRODUCERS_NOT_ENTITLED", message="not in this tier")]
    outcome = pb.IngestOutcome(partition=3, offset=9, rejections=refused)
    stand_in.answers["ListIngestOutcomes"] = pb.ListIngestOutcomesResponse(outcomes=[outcome])
    (line,) = (await tlsy("events", "outcomes")).out.splitlines()[1:]
    assert line.split()[:6] == ["3", "9", "-", "-", "-", "KAFKA_PRODUCERS_NOT_ENTITLED"]
    assert (await tlsy("events", "outcomes", "-o", "json")).json[0]["accepted"] == 0
