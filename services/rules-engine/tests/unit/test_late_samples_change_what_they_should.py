from __future__ import annotations

from .rules import START_US, S, engine, event, kinds, rule

NOW = START_US
COUNT = {"fn": "count", "over_s": 5, "op": "ge", "threshold": 3}


def test_a_late_true_sample_before_a_false_one_does_not_begin_the_run():
    made = engine(rule(for_s=20))
    made.apply([event(0, 1.0), event(10, 1.0), event(15)], NOW)
    assert kinds(made.apply([event(5), event(26)], NOW)) == []


def test_a_late_true_sample_after_the_false_one_begins_the_run_earlier():
    made = engine(rule(for_s=20))
    made.apply([event(0, 1.0), event(15)], NOW)
    assert kinds(made.apply([event(5), event(26)], NOW)) == [("open", ""), ("refresh", "")]


def test_a_late_false_sample_takes_back_what_was_opened_too_soon():
    made = engine(rule(for_s=20))
    assert kinds(made.apply([event(0), event(20)], NOW)) == [("open", ""), ("refresh", "")]
    assert kinds(made.apply([event(10, 1.0)], NOW)) == [("resolve", "corrected")]


def test_a_late_sample_older_than_the_newest_does_not_open_a_threshold():
    made = engine(rule())
    assert kinds(made.apply([event(10, 1.0), event(5)], NOW)) == []


def test_a_restart_does_not_forget_that_a_newer_sample_was_false():
    made, again = engine(rule()), engine(rule())
    again.load(made.apply([event(10, 1.0)], NOW).rows, NOW)
    assert kinds(again.apply([event(5)], NOW)) == []


def test_a_sample_older_than_the_window_does_not_count():
    made = engine(rule(window=COUNT))
    assert kinds(made.apply([event(20), event(20), event(14)], NOW)) == []
    assert made.counters.window_late == 1


def test_a_late_sample_inside_the_window_counts():
    made = engine(rule(window=COUNT))
    assert kinds(made.apply([event(20), event(20), event(16)], NOW)) == [("open", "")]


def test_a_group_of_two_sources_follows_the_clock_of_the_newest():
    made = engine(rule(window=COUNT, group_by=[], lateness_s=0))
    assert kinds(made.apply([event(0), event(1), event(2, source="u")], NOW)) == [("open", "")]
    assert kinds(made.apply([event(30, type="other")], NOW)) == []
    assert kinds(made.apply([event(30, type="other", source="u")], NOW)) == [("resolve", "expired")]


def test_a_silent_source_has_its_timers_run_on_processing_time():
    made = engine(rule(for_s=10, lateness_s=5), idle_us=60 * S)
    made.apply([event(0)], NOW)
    assert kinds(made.advance(NOW + 75 * S - 1)) == []
    assert kinds(made.advance(NOW + 75 * S)) == [("open", "")]


def test_a_restart_counts_as_hearing_of_every_source():
    made, again = engine(rule(for_s=10)), engine(rule(for_s=10))
    later_us = NOW + 3600 * S
    again.load(made.apply([event(0)], NOW).rows, later_us)
    assert kinds(again.advance(later_us)) == []


def test_absence_waits_for_its_grace_after_a_restart():
    made, again = engine(rule(absence={"after_s": 5})), engine(rule(absence={"after_s": 5}))
    later_us = NOW + 3600 * S
    again.load(made.apply([event(0)], NOW).rows, later_us)
    assert kinds(again.advance(later_us + 59 * S)) == []
    assert kinds(again.advance(later_us + 60 * S)) == [("open", "")]


def test_a_load_by_the_owner_that_was_there_all_along_moves_no_deadline():
    for changes, due_us in (({"absence": {"after_s": 90}}, NOW + 90 * S), ({"for_s": 10}, NOW + 100 * S)):
        made, again = engine(rule(**changes)), engine(rule(**changes))
        again.load(made.apply([event(0)], NOW).rows, NOW - 60 * S)
        assert again.next_deadline_us() == made.next_deadline_us() == due_us
