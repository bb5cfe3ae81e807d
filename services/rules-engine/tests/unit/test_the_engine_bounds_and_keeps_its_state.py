from __future__ import annotations

import gc
import weakref

import pytest

from tlsy.rules_engine.domain.canonical import version_id
from tlsy.rules_engine.domain.compiler import compile_rules
from tlsy.rules_engine.domain.events import Event

from .rules import HOT, START_US, S, compiled, engine, event, kinds, rule

NOW = START_US
COUNT = {"fn": "count", "over_s": 60, "op": "ge", "threshold": 3}


def test_groups_beyond_the_cap_are_not_tracked_and_counted():
    small = engine(rule(), max_groups_per_rule=1)
    effects = small.apply([event(0, subject="a"), event(0, subject="b")], NOW)
    assert kinds(effects) == [("open", "")]
    assert small.counters.groups_refused == 1


@pytest.mark.parametrize("changes", [{}, {"window": COUNT}, {"absence": {"after_s": 60}}])
def test_the_groups_of_all_rules_together_are_bounded_also_after_a_load(changes):
    hot, other = rule(**changes), rule(name="other", **changes)
    small = engine(hot, other, max_groups=3)
    rows = small.apply([event(0, subject="a"), event(0, subject="b")], NOW).rows
    assert small.counters.groups_refused == 1
    again = engine(hot, other, max_groups=3)
    again.load(rows, NOW)
    again.apply([event(1, subject="c")], NOW)
    assert again.counters.groups_refused == 2
    again.replace(compiled(other), NOW)
    again.apply([event(2, subject="c")], NOW)
    assert again.counters.groups_refused == 2


def test_a_full_table_gives_up_the_longest_silent_source_without_state():
    small = engine(rule(), max_sources=2)
    small.apply([event(0, source="firing")], NOW)
    small.apply([event(0, 1.0, source="quiet")], NOW + S)
    effects = small.apply([event(0, 1.0, source="new")], NOW + 2 * S)
    assert [(row.key, row.payload is None) for row in effects.rows] == [
        ('["quiet"]', True),
        ('["new"]', False),
    ]
    assert small.counters.sources_refused == 0


def test_the_leader_of_a_window_that_fires_is_not_given_up():
    manual = rule(window=COUNT | {"over_s": 5, "threshold": 1}, resolve={"auto": False})
    small, stored = engine(manual, max_sources=2), {}
    for number, (type_, source) in enumerate(
        [("temperature", "lead"), ("other", "lead"), ("other", "b"), ("other", "c"), ("other", "d")]
    ):
        for row in small.apply([event(100 * number, type=type_, source=source)], NOW + number * S).rows:
            stored[row.owner, row.key] = row
    assert stored["source", '["lead"]'].payload is not None
    assert stored["source", '["b"]'].payload is None


@pytest.mark.parametrize(
    "changes",
    [{"for_s": 604_800}, {"resolve": {"after_s": 604_800}}, {"window": COUNT | {"over_s": 604_800}}],
)
def test_timers_do_not_grow_with_a_value_that_flaps(changes):
    made = engine(rule(**changes, lateness_s=0))
    for number in range(200):
        made.apply([event(number, 95.0 if number % 2 else 1.0)], NOW)
        # Its incident was resolved by hand.
        made.clear("hot", ("s", "room").__eq__)
    assert len(made._sources["s"].timers) <= 40


class Watched(Event):
    __slots__ = ("__weakref__",)


def test_no_event_outlives_the_call_that_it_was_given_to():
    made = engine(rule(for_s=60), rule(name="absent", absence={"after_s": 60}))
    hot, cold = (
        Watched(source="s", id="1", time_us=START_US, type="temperature", value=value)
        for value in (95.0, 1.0)
    )
    made.apply([event(-1, subject=subject) for subject in "abc"], NOW)
    seen = [weakref.ref(hot), weakref.ref(cold)]
    made.apply([hot, cold], NOW)
    del hot, cold
    gc.collect()
    assert [each() for each in seen] == [None, None]


def test_a_full_table_of_sources_with_state_refuses_new_ones():
    small = engine(rule(), max_sources=1)
    small.apply([event(0, source="firing")], NOW)
    assert kinds(small.apply([event(0, source="new")], NOW)) == []
    assert small.counters.sources_refused == 1


def test_order_keys_beyond_the_cap_are_forgotten_and_counted():
    small = engine(rule(), max_order_keys_per_source=2)
    small.apply([event(number, 1.0, subject=str(number)) for number in range(5)], NOW)
    assert small.counters.order_keys_evicted == 3


def test_order_keys_that_no_sample_can_be_older_than_are_forgotten_and_the_others_kept():
    made = engine(rule(lateness_s=30))
    for number in range(1_000):
        # The second is older than what was seen last of its group, which was not true.
        late = [event(number - 25, subject=str(number - 20))] if number >= 20 else []
        assert kinds(made.apply([event(number, 1.0, subject=str(number)), *late], NOW)) == []
    kept = len(made._sources["s"].newest)
    assert kept <= 100
    assert made.counters.order_keys_evicted == 0


def test_an_event_older_than_the_lateness_is_ignored_and_counted():
    made = engine(rule())
    assert kinds(made.apply([event(31, 1.0, subject="other"), event(0)], NOW)) == []
    assert made.counters.late_events == 1


def test_a_division_by_zero_is_missing_and_counted():
    made = engine(rule(when={"gt": [{"div": [1, {"field": "value"}]}, 0]}))
    assert kinds(made.apply([event(0, 0.0)], NOW)) == []
    assert made.counters.zero_divisions == 1


def test_a_true_event_on_an_open_group_changes_no_row_but_its_sources():
    made = engine(rule())
    made.apply([event(0)], NOW)
    assert [row.owner for row in made.apply([event(1)], NOW).rows] == ["source"]


def test_publishing_one_rule_keeps_the_state_of_the_others():
    kept, old = rule(name="kept", window=COUNT), rule()
    made = engine(kept, old)
    made.apply([event(0), event(1)], NOW)
    replaced = made.replace(compiled(kept, rule(when={"gt": [{"field": "value"}, 99]})), NOW + 5 * S)
    assert kinds(replaced) == [("resolve", "superseded")]
    assert [row.payload for row in replaced.rows] == [None]
    assert [transition.at_us for transition in replaced.transitions] == [NOW + 5 * S]
    assert kinds(made.apply([event(2)], NOW)) == [("open", "")]


def test_types_whose_rules_stay_are_not_compiled_again():
    kept, old = rule(name="kept", match={"type": "other"}), rule()
    before = compiled(kept, old)
    changed = rule(for_s=5)
    after = compile_rules([(version_id(each), each) for each in (kept, changed)], before)
    assert after.programs["other"] is before.programs["other"]
    assert after.programs["temperature"] is not before.programs["temperature"]


def test_what_an_operator_resolved_opens_again_at_the_next_true_event():
    made = engine(rule(resolve={"auto": False}))
    made.apply([event(0)], NOW)
    cleared = made.clear("hot", ("s", "room").__eq__)
    assert [row.payload for row in cleared.rows] == [None]
    assert kinds(made.apply([event(1)], NOW)) == [("open", "")]


def test_a_cleared_window_keeps_its_samples():
    made = engine(rule(window=COUNT, resolve={"auto": False}))
    made.apply([event(0), event(1), event(2)], NOW)
    made.clear("hot", ("s", "room").__eq__)
    assert kinds(made.apply([event(3)], NOW)) == [("open", "")]


def test_a_cleared_absence_is_expected_again_once_seen_again():
    made = engine(rule(absence={"after_s": 5}))
    made.apply([event(0)], NOW)
    assert kinds(made.advance(NOW + 5 * S)) == [("open", "")]
    made.clear("hot", ("s", "room").__eq__)
    assert kinds(made.advance(NOW + 50 * S)) == []
    made.apply([event(1)], NOW + 60 * S)
    assert kinds(made.advance(NOW + 65 * S)) == [("open", "")]


def test_the_next_deadline_is_when_something_happens():
    made = engine(rule(for_s=10))
    made.apply([event(0)], NOW)
    due_us = made.next_deadline_us()
    assert kinds(made.advance(due_us - 1)) == []
    assert kinds(made.advance(due_us)) == [("open", "")]


def test_a_disabled_rule_does_not_run():
    assert kinds(engine(rule(enabled=False)).apply([event(0)], NOW)) == []


def test_no_text_or_number_of_a_user_is_in_the_generated_source():
    hostile = "');import os#"
    made = rule(
        when={
            "and": [
                HOT,
                {"eq": [{"field": f"labels.{hostile}"}, hostile]},
                {"matches": [{"field": "subject"}, f"*{hostile}*"]},
                {"gt": [{"field": f"data.{hostile}"}, 123456]},
            ]
        },
        group_by=[f"labels.{hostile}"],
    )
    source = compiled(made).programs["temperature"].source
    assert "import" not in source
    assert "123456" not in source


def test_a_condition_that_many_rules_share_is_tested_once():
    shared = {"eq": [{"field": "labels.kind"}, "ssd"]}
    rules = [rule(name=f"r{n}", when={"and": [shared, {"gt": [{"field": "value"}, n]}]}) for n in range(50)]
    source = compiled(*rules).programs["temperature"].source.partition("def judge")[2]
    assert source.count("labels.get") == 1
    assert source.count("bisect") == 1


def test_what_time_operators_and_new_rules_end_comes_in_steps():
    rules = rule(for_s=10), rule(name="absent", absence={"after_s": 10})
    made = engine(*rules)
    made.apply([event(0, source=str(n % 5), subject=str(n)) for n in range(50)], NOW)
    opened = [len(part) for part in made.advancing(NOW + 600 * S, 10)]
    assert (max(opened), sum(opened)) == (10, 100)
    made.settle()
    clearing = made.clearing("absent", lambda _: True, 10)
    cleared = [len(made.settle().rows) for _ in clearing]
    assert (max(cleared), sum(cleared)) == (10, 50)
    ended = [len(part) for part in made.replacing(compiled(), NOW + 600 * S, 10)]
    assert (max(ended), sum(ended)) == (10, 50)


def test_what_an_event_ends_because_time_passed_comes_in_steps_before_it_is_judged():
    made = engine(rule(for_s=10))
    made.apply([event(0, subject=str(n)) for n in range(50)], NOW)
    steps = list(made.feeding([event(600, 1.0, subject="0"), event(601, subject="new")], NOW, 10))
    assert [len(step) for step in steps] == [10, 10, 10, 10, 10, 1]
    assert [transition.kind for transition in steps[-1]] == ["resolve"]


def test_the_rows_of_sources_with_many_order_keys_come_in_slices():
    crowded = engine(rule())
    for source in range(8):
        events = [event(0, 1.0, source=f"s{source}", subject=f"{key}") for key in range(500)]
        for _ in crowded.feeding(events, NOW, 1000):
            pass
    written = []
    while not crowded.settled:
        written.append(len(crowded.settle(20).rows))
    assert written == [2, 2, 2, 2]


def test_a_label_that_holds_control_characters_is_a_group_field_of_its_own():
    one = rule(group_by=["labels.a\x1flabels.b"])
    two = rule(name="two", group_by=["labels.a", "labels.b"])
    labels = {"a\x1flabels.b": "1", "a": "2", "b": "3"}
    effects = engine(one, two).apply([event(0, labels=labels)], NOW)
    assert {(opened.rule, opened.group) for opened in effects.transitions} == {
        ("hot", ("s", "1")),
        ("two", ("s", "2", "3")),
    }
