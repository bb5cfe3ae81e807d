from __future__ import annotations

import json
from time import process_time

import pytest

from tlsy.rules_engine.domain.cost import rule_cost
from tlsy.rules_engine.domain.events import Event
from tlsy.rules_engine.domain.problems import Code, ObservedSchema, Problem, RuleLimits, SeenField
from tlsy.rules_engine.domain.validate import validate

from .rules import HOT, START_US, document, engine, event, kinds, rule, without

SEEN = ObservedSchema(
    {
        "temperature": {
            "labels.disk": SeenField(frozenset({"string"}), 0),
            "data.load": SeenField(frozenset({"number"}), 0),
            "data.mixed": SeenField(frozenset({"number", "string"}), 0),
        }
    }
)
VALUE = {"field": "value"}
TEXT = {"field": "data.text", "type": "string"}


def problems(made, schema=SEEN, **limits):
    found = validate(made, schema, RuleLimits(**limits))
    assert isinstance(found, list), found
    assert all(problem.hint for problem in found)
    return [(problem.pointer, problem.code) for problem in found]


def nested(levels):
    condition: dict[str, object] = HOT
    for _ in range(levels):
        condition = {"not": condition}
    return condition


@pytest.mark.parametrize(
    ("when", "pointer", "code"),
    [
        ({"gtt": [VALUE, 1]}, "/when/gtt", "UNKNOWN_OPERATOR"),
        ({"gt": [VALUE, "30"]}, "/when/gt/1", "WRONG_TYPE"),
        ({"gt": ["30", VALUE]}, "/when/gt/0", "WRONG_TYPE"),
        ({"gt": [VALUE]}, "/when/gt", "WRONG_ARITY"),
        ({"gt": [{"div": [VALUE, 0]}, 1]}, "/when/gt/0/div/1", "DIVISION_BY_ZERO"),
        ({"gt": [{"mod": [VALUE, 0.0]}, 1]}, "/when/gt/0/mod/1", "DIVISION_BY_ZERO"),
        ({"eq": [{"field": "labels.dsik"}, "a"]}, "/when/eq/0/field", "UNKNOWN_FIELD"),
        ({"eq": [{"field": "data.load"}, "a"]}, "/when/eq/1", "WRONG_TYPE"),
        ({"gt": [{"field": "labels.dsik"}, 1]}, "/when/gt/0/field", "UNKNOWN_FIELD"),
        ({"exists": {"field": "data.mixed"}}, "/when/exists", "FIELD_TYPE_UNKNOWN"),
        ({"gt": [{"field": "data.load", "type": "string"}, 1]}, "/when/gt/0", "FIELD_TYPE_CONFLICT"),
        ({"ge": [{"field": "severity"}, "eror"]}, "/when/ge/1", "UNKNOWN_VALUE"),
        ({"eq": [{"field": "severity"}, []]}, "/when/eq/1", "WRONG_TYPE"),
        ({"in": [{"field": "severity"}, ["error", []]]}, "/when/in/1/1", "UNKNOWN_VALUE"),
        ({"starts_with": [{"field": "severity"}, "err"]}, "/when/starts_with/0/field", "WRONG_TYPE"),
        ({"matches": [{"field": "subject"}, "*" * 9]}, "/when/matches/1", "TOO_COSTLY"),
        ({"in": [VALUE, []]}, "/when/in/1", "WRONG_TYPE"),
        ({"in": [VALUE, [1, "a"]]}, "/when/in/1/1", "WRONG_TYPE"),
        ({"in": [VALUE, [1, {"add": [1, 2]}]]}, "/when/in/1/1", "WRONG_TYPE"),
        ({"gt": [{"neg": {"field": "nope"}}, 1]}, "/when/gt/0/neg/field", "UNKNOWN_FIELD"),
        ({"gt": [{"neg": [{"field": "nope"}]}, 1]}, "/when/gt/0/neg/0/field", "UNKNOWN_FIELD"),
        ({"and": []}, "/when/and", "WRONG_ARITY"),
        ({"gt": [VALUE, 1], "lt": [VALUE, 2]}, "/when", "WRONG_ARITY"),
        ({"eq": [{"field": "subject"}, "a\0"]}, "/when/eq/1", "INVALID_TEXT"),
        ({"eq": [{"field": "subject"}, "\ud800"]}, "/when/eq/1", "INVALID_TEXT"),
        ({"gt": [VALUE, float("nan")]}, "/when/gt/1", "NOT_FINITE"),
        ({"gt": [VALUE, 2**70]}, "/when/gt/1", "OUT_OF_RANGE"),
        (nested(16), "/when" + "/not" * 16, "TOO_DEEP"),
        (7, "/when", "WRONG_TYPE"),
    ],
)
def test_a_bad_condition_is_named_by_pointer_and_code(when, pointer, code):
    assert problems(document(when=when)) == [(pointer, code)]


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"match": {"type": "temprature"}}, "/match/type", "UNKNOWN_EVENT_TYPE"),
        ({"schema": "tlsy.rule/2"}, "/schema", "UNKNOWN_SCHEMA"),
        ({"nmae": "x"}, "/nmae", "UNKNOWN_MEMBER"),
        ({"name": "Hot Disk"}, "/name", "WRONG_TYPE"),
        ({"for_s": 10**9}, "/for_s", "WINDOW_TOO_LARGE"),
        ({"for_s": 0}, "/for_s", "OUT_OF_RANGE"),
        ({"for_s": 1.5}, "/for_s", "WRONG_TYPE"),
        ({"lateness_s": 301}, "/lateness_s", "OUT_OF_RANGE"),
        ({"for_s": 5, "absence": {"after_s": 5}}, "/absence", "CONFLICTING_MEMBERS"),
        ({"group_by": ["value"]}, "/group_by/0", "WRONG_TYPE"),
        ({"group_by": ["site", "site"]}, "/group_by/1", "CONFLICTING_MEMBERS"),
        ({"resolve": {"auto": True, "after_s": 5}}, "/resolve", "CONFLICTING_MEMBERS"),
        ({"for_s": 5, "resolve": {"after_s": 5}}, "/resolve/after_s", "CONFLICTING_MEMBERS"),
        ({"enabled": "yes"}, "/enabled", "WRONG_TYPE"),
        ({"incident": {"severity": "error", "summary": "{nope}"}}, "/incident/summary", "UNKNOWN_FIELD"),
        ({"incident": {"severity": "error", "summary": "{"}}, "/incident/summary", "WRONG_TYPE"),
        (
            {"incident": {"severity": "error", "summary": "", "dedup_key": ["site"]}},
            "/incident/dedup_key/0",
            "UNKNOWN_FIELD",
        ),
        (
            {"incident": {"severity": "error", "summary": "", "dedup_key": ["source", "source"]}},
            "/incident/dedup_key/1",
            "CONFLICTING_MEMBERS",
        ),
        ({"window": {"fn": "sum", "over_s": 5, "op": "ge", "threshold": 1}}, "/window", "MISSING_MEMBER"),
        (
            {"window": {"fn": "count", "over_s": 10**9, "op": "ge", "threshold": 1}},
            "/window/over_s",
            "WINDOW_TOO_LARGE",
        ),
    ],
)
def test_a_bad_member_is_named_by_pointer_and_code(changes, pointer, code):
    assert problems(document(**changes)) == [(pointer, code)]


def test_every_problem_is_reported_at_once():
    when = {"and": [{"gtt": [VALUE, 1]}, {"gt": [VALUE, "x"]}]}
    found = problems(without("incident", when=when, for_s=0))
    assert {code for _, code in found} == {"UNKNOWN_OPERATOR", "WRONG_TYPE", "OUT_OF_RANGE", "MISSING_MEMBER"}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"{", "INVALID_JSON"),
        (b"\xff", "INVALID_UTF8"),
        (b'{"a":1,"a":2}', "DUPLICATE_KEY"),
        (b'{"a":NaN}', "NOT_FINITE"),
        (b'{"a":1e999}', "NOT_FINITE"),
        (b'{"a":' + b"9" * 5000 + b"}", "INVALID_JSON"),
        (b'"\\u0000"', "INVALID_TEXT"),
        (b"[" * 60_000, "TOO_DEEP"),
        (b"[" * 100 + b"]" * 100, "TOO_DEEP"),
        (b" " * 70_000, "DOCUMENT_TOO_LARGE"),
        (b"[]", "WRONG_TYPE"),
        (b"[" + b"0," * 30_000 + b"0]", "TOO_MANY_NODES"),
        (b'{"%s":[1e999]}' % (b"k" * 65), "TOO_LONG"),
    ],
)
def test_bytes_that_are_no_document_are_refused(raw, code):
    assert [found for _, found in problems(raw)] == [code]


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_hint_and_gives_way_to_a_better_one(code):
    assert Problem("", code, "wrong").hint
    assert Problem("", code, "wrong", "better").hint == "better"


def test_a_misspelt_word_is_answered_with_the_nearest_known():
    found = validate(document(when={"eq": [{"field": "labels.dsik"}, "a"]}), SEEN, RuleLimits())
    assert isinstance(found, list)
    assert [problem.hint for problem in found] == ['did you mean "labels.disk"?']


def test_the_worst_document_is_answered_soon_and_with_so_many_problems():
    fields = {f"labels.some_field_number_{n}": SeenField(frozenset({"string"}), 0) for n in range(2_000)}
    unknown = [{"exists": {"field": f"labels.some_feild_numbr_{n}"}} for n in range(500)]
    made = json.dumps(document(when={"and": unknown}, group_by=[f"labels.x{n}" for n in range(1_000)]))
    began = process_time()
    found = validate(made.encode(), ObservedSchema({"temperature": fields}), RuleLimits())
    assert process_time() - began < 2
    assert isinstance(found, list)
    assert len(found) == 101
    assert found[-1].code == "TOO_MANY_PROBLEMS"


def test_the_problems_of_a_document_are_not_much_larger_than_the_document():
    for key in ("k" * 30_000, "k" * 60):
        made = b'{"%s":[%s]}' % (key.encode(), b"1e999," * 4_000 + b"1e999")
        found = validate(made, ObservedSchema(), RuleLimits())
        assert isinstance(found, list)
        assert sum(len(problem.pointer) + len(problem.message) for problem in found) < len(made)


def test_a_pointer_escapes_what_rfc_6901_says():
    assert problems(document(**{"a/b~c": 1})) == [("/a~1b~0c", "UNKNOWN_MEMBER")]


def test_too_many_nodes_and_too_much_cost_are_refused():
    assert problems(document(when={"or": [HOT] * 100})) == [("", "TOO_MANY_NODES")]
    glob = {"matches": [{"field": "data.text", "type": "string"}, "*a*"]}
    assert problems(document(when={"or": [glob] * 20}), ObservedSchema()) == [("", "TOO_COSTLY")]


def test_a_text_test_costs_what_it_may_search():
    def cost(op, path, pattern):
        return rule_cost(rule(when={op: [{"field": path, "type": "string"}, pattern]}))

    assert cost("matches", "subject", "disk*") < cost("matches", "subject", "*disk*")
    assert cost("matches", "subject", "*disk*") < cost("matches", "data.text", "*disk*")
    assert cost("matches", "data.text", "*disk*") < cost("matches", "data.text", "*d?sk*")
    assert cost("contains", "data.text", "disk") < cost("contains", "data.text", "d" * 100)


@pytest.mark.parametrize("when", [{"contains": [TEXT, "needle"]}, {"matches": [TEXT, "*needle*"]}])
def test_of_a_long_text_only_the_beginning_is_searched(when):
    made = engine(rule(when=when))
    found = [event(n, data={"text": "x" * n + "needle"}) for n in (1_018, 1_019)]
    assert kinds(made.apply(found, START_US)) == [("open", ""), ("resolve", "cleared")]


def test_a_tenant_that_sent_nothing_may_name_any_field():
    made = document(when={"eq": [{"field": "labels.anything"}, "a"]})
    assert not isinstance(validate(made, ObservedSchema(), RuleLimits()), list)


def test_unseen_types_and_fields_are_accepted_on_request():
    made = document(match={"type": "new", "unseen": True}, when={"gt": [{"field": "data.new"}, 1]})
    assert not isinstance(validate(json.dumps(made).encode(), SEEN, RuleLimits()), list)


def test_data_that_is_not_an_object_reads_as_no_data():
    assert Event(source="s", id="1", time_us=0, type="t", data=b"[1]").data is None
    assert Event(source="s", id="1", time_us=0, type="t", data=b"\xff{").data is None
