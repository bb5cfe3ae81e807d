"""Small random worlds: rules that are valid by construction, and events that often touch them."""

from __future__ import annotations

from hypothesis import strategies as st

START_US = 1_700_000_000_000_000
S = 1_000_000
NUMBERS = st.sampled_from([-1, 0, 0.5, 1, 2, 3, 10])
TEXTS = st.sampled_from(["", "a", "ab", "b", "x-1"])


def field(path, type_):
    return {"field": path, "type": type_}


SEVERITY = field("severity", "severity")
NUMBER_FIELDS = st.sampled_from(
    [field("value", "number"), field("data.n", "number"), field("data.o.n", "number")]
)
BOOLEAN = field("data.ok", "boolean")
TEXT_FIELDS = st.sampled_from(
    [
        field("source", "string"),
        field("subject", "string"),
        field("labels.a", "string"),
        field("labels.b", "string"),
        field("site", "string"),
        field("data.t", "string"),
    ]
)


def arithmetic(inner):
    two = st.tuples(inner, inner).map(list)
    binary = st.sampled_from(["add", "sub", "mul"])
    divisor = st.one_of(NUMBER_FIELDS, st.sampled_from([2, 3]))
    return st.one_of(
        st.builds(lambda op, args: {op: args}, binary, two),
        st.builds(lambda op, a, b: {op: [a, b]}, st.sampled_from(["div", "mod"]), inner, divisor),
        st.builds(lambda op, a: {op: [a]}, st.sampled_from(["neg", "abs"]), inner),
    )


VALUES = st.recursive(NUMBER_FIELDS, lambda inner: arithmetic(st.one_of(inner, NUMBERS)), max_leaves=3)
COMPARE = st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"])
ATOMS = st.one_of(
    st.builds(lambda op, a, b: {op: [a, b]}, COMPARE, NUMBER_FIELDS, NUMBERS),
    st.builds(lambda op, a, b: {op: [b, a]}, COMPARE, NUMBER_FIELDS, NUMBERS),
    st.builds(lambda op, a, b: {op: [a, b]}, COMPARE, VALUES, st.one_of(NUMBERS, VALUES)),
    st.builds(lambda op, a, b: {op: [a, b]}, COMPARE, NUMBERS, NUMBERS),
    st.builds(lambda op, a, b: {op: [a, b]}, st.sampled_from(["eq", "ne"]), TEXT_FIELDS, TEXTS),
    st.builds(lambda op, a, b: {op: [b, a]}, st.sampled_from(["eq", "ne"]), TEXT_FIELDS, TEXTS),
    st.builds(lambda op, a, b: {op: [a, b]}, st.sampled_from(["eq", "ne"]), TEXT_FIELDS, TEXT_FIELDS),
    st.builds(
        lambda op, s: {op: [SEVERITY, s]},
        COMPARE,
        st.sampled_from(["info", "warning", "error"]),
    ),
    st.builds(lambda op, s: {op: [s, SEVERITY]}, COMPARE, st.sampled_from(["info", "warning", "error"])),
    st.builds(lambda op: {op: [SEVERITY, SEVERITY]}, st.sampled_from(["eq", "ne"])),
    st.builds(
        lambda op, s: {op: [SEVERITY, s]},
        st.sampled_from(["in", "not_in"]),
        st.lists(st.sampled_from(["info", "warning", "error"]), min_size=1),
    ),
    st.builds(lambda op, s: {op: [BOOLEAN, s]}, st.sampled_from(["eq", "ne"]), st.booleans()),
    st.builds(
        lambda op, s: {op: [BOOLEAN, s]},
        st.sampled_from(["in", "not_in"]),
        st.lists(st.booleans(), min_size=1, max_size=2),
    ),
    st.builds(
        lambda op, a, b: {op: [a, b]},
        st.sampled_from(["starts_with", "ends_with", "contains"]),
        TEXT_FIELDS,
        TEXTS,
    ),
    st.builds(
        lambda a, b: {"matches": [a, b]},
        TEXT_FIELDS,
        st.sampled_from(["*", "a*", "?-*", "*b", "a?", "*a*b*"]),
    ),
    st.builds(
        lambda op, a, b: {op: [a, b]},
        st.sampled_from(["in", "not_in"]),
        TEXT_FIELDS,
        st.lists(TEXTS, min_size=1),
    ),
    st.builds(
        lambda op, a, b: {op: [a, b]},
        st.sampled_from(["in", "not_in"]),
        NUMBER_FIELDS,
        st.lists(NUMBERS, min_size=1, max_size=3),
    ),
    st.builds(
        lambda a: {"exists": a}, st.one_of(TEXT_FIELDS, NUMBER_FIELDS, st.just(BOOLEAN), st.just(SEVERITY))
    ),
)
#: A field in every place of every operator, whether or not it may be there.
OPERANDS = st.one_of(
    st.just({"field": "severity"}),
    st.just(SEVERITY),
    NUMBER_FIELDS,
    TEXT_FIELDS,
    NUMBERS,
    TEXTS,
    st.just("error"),
)
ANYTHING = st.one_of(
    st.builds(
        lambda op, a, b: {op: [a, b]},
        st.sampled_from(
            ["eq", "ne", "lt", "ge", "starts_with", "ends_with", "contains", "matches", "add", "div"]
        ),
        OPERANDS,
        OPERANDS,
    ),
    st.builds(
        lambda op, a, b: {op: [a, b]},
        st.sampled_from(["in", "not_in"]),
        OPERANDS,
        st.lists(st.one_of(OPERANDS, st.just([]), st.just({"add": [1, 2]})), max_size=3),
    ),
    st.builds(lambda op, a: {op: a}, st.sampled_from(["exists", "not"]), OPERANDS),
)
LEVEL = st.builds(
    lambda op, n: {op: [field("value", "number"), n]},
    st.sampled_from(["gt", "ge", "lt"]),
    st.sampled_from([0, 1, 2]),
)
CONDITIONS = st.recursive(
    st.one_of(LEVEL, ATOMS),
    lambda inner: st.one_of(
        st.builds(lambda args: {"and": args}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda args: {"or": args}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda arg: {"not": arg}, inner),
    ),
    max_leaves=5,
)
GROUPS = st.lists(st.sampled_from(["source", "subject", "labels.a", "site"]), max_size=2, unique=True)


@st.composite
def rules(draw, name):
    document = {
        "schema": "tlsy.rule/1",
        "name": name,
        "match": {"type": draw(st.sampled_from(["m", "m", "n"]))},
        "group_by": draw(GROUPS),
        "incident": {"severity": "error", "summary": "x"},
        "lateness_s": draw(st.sampled_from([0, 5, 5, 10])),
        "resolve": {"auto": draw(st.sampled_from([True, True, False]))},
    }
    kind = draw(st.sampled_from(["threshold", "held", "window", "absence", "after", "when"]))
    if kind not in {"window", "absence"} or draw(st.booleans()):
        document["when"] = draw(st.one_of(LEVEL, CONDITIONS))
    if kind == "held":
        document["for_s"] = draw(st.integers(1, 20))
    elif kind == "window":
        fn = draw(st.sampled_from(["count", "sum", "avg", "min", "max"]))
        document["window"] = {
            "fn": fn,
            "over_s": draw(st.integers(1, 20)),
            "op": draw(COMPARE),
            "threshold": draw(st.sampled_from([0, 0.5, 1, 2, 3])),
        }
        if fn != "count":
            document["window"]["of"] = draw(VALUES)
    elif kind == "absence":
        document["absence"] = {"after_s": draw(st.integers(1, 20))}
    elif kind == "after":
        document["resolve"] = {"after_s": draw(st.integers(1, 20))}
    elif kind == "when":
        document["resolve"] = {"when": draw(st.one_of(LEVEL, CONDITIONS))}
    return document


#: The largest integer that is one, the first that is not; sums and products of the others are not finite.
EXTREMES = st.sampled_from([2**63, 2**63 + 1, -(2**63) - 1, 1e15, -1.1e15, 1e308, -1e308, 5e-324])
#: As long as is searched, and longer; as long as can be read, and longer.
LONG = ["x" * 1_022 + "ab", "x" * 1_023 + "ab", "x" * 4_095 + "b", "x" * 4_096 + "b"]
DATA = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "n": st.one_of(NUMBERS, EXTREMES, TEXTS, st.booleans(), st.none()),
            "o": st.one_of(st.fixed_dictionaries({"n": st.one_of(NUMBERS, EXTREMES)}), st.just(3)),
            "t": st.one_of(TEXTS, st.sampled_from(LONG), st.just(1)),
            "ok": st.one_of(st.booleans(), st.just(1)),
        },
    ),
)


@st.composite
def events(draw, number, now_s):
    late = draw(st.sampled_from([0, 0, 0, 0, 1, 2, 4, 6, 11, 25]))
    return {
        "source": draw(st.sampled_from(["s", "s", "u"])),
        "id": str(number),
        "time_us": START_US + (now_s - late) * S + draw(st.sampled_from([0, 0, 0, 250_000, 500_000])),
        "type": draw(st.sampled_from(["m", "m", "m", "n", "other"])),
        "subject": draw(st.sampled_from(["p", "p", "q"])),
        "site": draw(st.sampled_from(["a", "b"])),
        "severity": draw(st.sampled_from(["info", "warning", "critical"])),
        "value": draw(st.sampled_from([None, -1.0, 0.0, 1.0, 2.0, 3.0, 3.0])),
        "labels": draw(st.fixed_dictionaries({}, optional={"a": TEXTS, "b": TEXTS})),
        "data": draw(DATA),
    }


@st.composite
def worlds(draw):
    """Documents by name, and calls (kind, events, now): events only to "apply"."""
    count = draw(st.integers(1, 7))
    documents = [draw(rules(f"r{number}")) for number in range(count)]
    now_s, calls, number = 0, [], 0
    for _ in range(draw(st.integers(1, 8))):
        kind = draw(st.sampled_from(["apply", "apply", "apply", "apply", "advance", "restart", "reload"]))
        if kind == "apply":
            batch = []
            for _ in range(draw(st.integers(1, 8))):
                now_s += draw(st.sampled_from([0, 0, 1, 1, 2, 5, 12]))
                batch.append(draw(events(number, now_s)))
                number += 1
            calls.append((kind, batch, START_US + now_s * S))
        else:
            now_s += draw(st.sampled_from([0, 3, 15, 40]))
            calls.append((kind, [], START_US + now_s * S))
    return documents, calls
