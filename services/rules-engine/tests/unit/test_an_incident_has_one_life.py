from __future__ import annotations

from dataclasses import replace

import pytest

from tlsy.rules_engine.domain.incident import (
    MAX_TIMELINE,
    IllegalTransition,
    IncidentId,
    ReopenPolicy,
    acknowledge,
    dedup_key,
    open_incident,
    refresh,
    reopen,
    resolve,
)

from .rules import START_US, S, engine, event, rule

MADE = rule()


def opened():
    transition = engine(MADE).apply([event(0)], START_US).transitions[0]
    return open_incident(IncidentId("i"), MADE, transition), transition


def allowed(outcome):
    assert not isinstance(outcome, IllegalTransition), outcome
    return outcome


def refusal(outcome):
    assert isinstance(outcome, IllegalTransition), outcome
    return outcome.reason


def test_it_keeps_the_version_and_the_values_that_opened_it():
    incident, transition = opened()
    assert incident.version == transition.version
    assert incident.operands == {"value": 95.0, "subject": "room"}
    assert incident.summary == "room at 95"
    assert incident.group == {"source": "s", "subject": "room"}


def test_open_acknowledged_resolved_is_written_in_the_timeline():
    incident, _ = opened()
    incident = allowed(acknowledge(incident, "ada", START_US + S, "on it"))
    incident = allowed(resolve(incident, "rule", START_US + 2 * S, "cleared"))
    assert [(entry.kind, entry.actor, entry.note) for entry in incident.timeline] == [
        ("OPENED", "rule", ""),
        ("ACKNOWLEDGED", "ada", "on it"),
        ("RESOLVED", "rule", "cleared"),
    ]


def test_steps_out_of_order_are_refused_with_their_reason():
    incident, transition = opened()
    policy = ReopenPolicy()
    acknowledged = allowed(acknowledge(incident, "ada", START_US))
    resolved = allowed(resolve(incident, "ada", START_US))
    assert refusal(acknowledge(acknowledged, "bob", START_US)) == "ALREADY_ACKNOWLEDGED"
    assert refusal(acknowledge(resolved, "bob", START_US)) == "ALREADY_RESOLVED"
    assert refusal(resolve(resolved, "bob", START_US)) == "ALREADY_RESOLVED"
    assert refusal(refresh(resolved, START_US)) == "ALREADY_RESOLVED"
    assert refusal(reopen(incident, MADE, transition, policy)) == "NOT_RESOLVED"
    assert refusal(resolve(incident, "ada", START_US, "x" * 3000)) == "NOTE_TOO_LONG"


@pytest.mark.parametrize(("after_s", "opens"), [(300, True), (301, False)])
def test_it_opens_again_only_soon_after_its_resolution(after_s, opens):
    incident, transition = opened()
    resolved = allowed(resolve(incident, "rule", transition.at_us))
    later = replace(transition, at_us=transition.at_us + after_s * S)
    again = reopen(resolved, MADE, later, ReopenPolicy(within_s=300))
    if opens:
        again = allowed(again)
        assert (again.state, again.reopened, again.acknowledged_by) == ("OPEN", 1, "")
    else:
        assert refusal(again) == "REOPEN_TOO_LATE"


def test_opened_again_it_says_what_is_so_this_time():
    incident, transition = opened()
    resolved = allowed(resolve(incident, "rule", transition.at_us))
    worse = rule(incident={"severity": "critical", "summary": "{subject} burns at {value}"})
    later = replace(transition, operands={**transition.operands, "value": 99.0})
    again = allowed(reopen(resolved, worse, later, ReopenPolicy()))
    assert (again.severity, again.summary) == ("critical", "room burns at 99")
    assert (again.id, again.opened_us, len(again.timeline)) == (incident.id, incident.opened_us, 3)


def test_it_is_never_over_before_it_began():
    incident, transition = opened()
    resolved = allowed(resolve(incident, "rule", transition.at_us - S, "corrected"))
    assert resolved.resolved_us == incident.opened_us


def test_long_values_are_cut_in_what_an_incident_says():
    made = rule(
        incident={"severity": "error", "summary": "{data.x}" * 100 + "{value}"},
        when={"exists": {"field": "data.x", "type": "string"}},
    )
    transition = engine(made).apply([event(0, data={"x": "é" * 4_000})], START_US).transitions[0]
    incident = open_incident(IncidentId("i"), made, transition)
    assert len(incident.summary.encode()) <= 1_024
    assert incident.summary.endswith("é…")
    assert incident.operands["data.x"] == "é" * 255 + "…"


def test_a_refresh_moves_only_the_time_it_was_last_seen():
    incident, _ = opened()
    assert allowed(refresh(incident, START_US + S)).last_seen_us == START_US + S
    assert refresh(incident, START_US - S) == incident


def test_the_timeline_keeps_its_first_entry_and_counts_what_it_drops():
    incident, transition = opened()
    for _ in range(MAX_TIMELINE):
        incident = allowed(resolve(incident, "rule", transition.at_us))
        incident = allowed(reopen(incident, MADE, transition, ReopenPolicy()))
    assert len(incident.timeline) == MAX_TIMELINE
    assert incident.timeline[0].kind == "OPENED"
    assert incident.entries_dropped == MAX_TIMELINE + 1


def test_the_dedup_key_ignores_the_version_and_fields_not_named():
    by_source = {"incident": {"severity": "error", "summary": "", "dedup_key": ["source"]}}
    old, new = rule(**by_source), rule(**by_source, for_s=5)
    assert dedup_key(old, ("s", "room")) == dedup_key(new, ("s", "attic"))
    assert dedup_key(old, ("s", "room")) != dedup_key(old, ("u", "room"))


def test_a_member_that_only_the_summary_names_is_told_whatever_its_type():
    told = {"severity": "error", "summary": "{data.n} {data.on} {data.t} {data.o} {data.o.x}"}
    spec = rule(incident=told)
    data = {"n": 12, "on": True, "t": "y" * 300, "o": {"x": 0.5}}
    (opening,) = engine(spec).apply([event(0, data=data)], START_US).transitions
    assert open_incident(IncidentId("i"), spec, opening).summary == f"12 true {'y' * 255}… ? 0.5"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (95.25, "95.25"),
        (999_999.7, "999999.7"),
        (5_368_709_120.0, "5368709120"),
        (-1_234_567.0, "-1234567"),
        (2.0**53, "9007199254740992"),
        (2.0**60, "1152921504606846976"),
        (-1e22, "-10000000000000000000000"),
        (12_345_678.5, "12345678.5"),
    ],
)
def test_a_large_number_is_told_without_exponent_and_a_whole_one_without_fraction(value, told):
    spec = rule(when={"exists": {"field": "value"}})
    (opening,) = engine(spec).apply([event(0, value)], START_US).transitions
    assert open_incident(IncidentId("i"), spec, opening).summary == f"room at {told}"
