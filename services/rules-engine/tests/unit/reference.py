"""The oracle: a slow interpreter of `docs/rules.md` over raw documents, sharing no code with the engine.

It keeps every accepted sample for ever and looks at all of them again at every step.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

S = 1_000_000
RANKS = ["debug", "info", "warning", "error", "critical"]
ORDER = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def read(event, path, type_):
    head, _, rest = path.partition(".")
    if head == "labels":
        return event["labels"].get(rest)
    if head != "data":
        return event[path]
    node = event["data"]
    for name in rest.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    fits = {
        "number": isinstance(node, (int, float)) and not isinstance(node, bool),
        "string": isinstance(node, str),
        "boolean": isinstance(node, bool),
    }[type_]
    if (
        not fits
        or (isinstance(node, int) and abs(node) > 2**63)
        or (isinstance(node, str) and len(node) > 4096)
    ):
        return None
    return float(node) if type_ == "number" else node


def searched(text, path):
    return text[:1024] if path.startswith("data.") else text


def told(value):
    return value[:255] + "…" if isinstance(value, str) and len(value) > 256 else value


def value_of(node, event):
    if not isinstance(node, dict):
        return float(node) if isinstance(node, int) and not isinstance(node, bool) else node
    if "field" in node:
        return read(event, node["field"], node["type"])
    ((op, args),) = node.items()
    numbers = [value_of(arg, event) for arg in args]
    if None in numbers or (op in {"div", "mod"} and numbers[1] == 0):
        return None
    functions: dict[str, Any] = {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "div": operator.truediv,
        "mod": operator.mod,
        "neg": operator.neg,
        "abs": abs,
    }
    found = functions[op](*numbers)
    return found if abs(found) < float("inf") else None


def glob(pattern, text):
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in {"?", text[0]} and glob(pattern[1:], text[1:])


def is_severity(node):
    return isinstance(node, dict) and node.get("type") == "severity"


def holds(node, event):  # noqa: PLR0911 - as naive as the page it is written from
    ((op, args),) = node.items()
    if op == "and":
        return all(holds(arg, event) for arg in args)
    if op == "or":
        return any(holds(arg, event) for arg in args)
    if op == "not":
        return not holds(args, event)
    if op == "exists":
        return read(event, args["field"], args["type"]) is not None
    left = value_of(args[0], event)
    if left is None:
        return False
    if op in {"in", "not_in"}:
        return (left in args[1]) == (op == "in")
    right = value_of(args[1], event)
    if right is None:
        return False
    if op in ORDER:
        if any(is_severity(arg) for arg in args):
            left, right = RANKS.index(left), RANKS.index(right)
        return ORDER[op](left, right)
    head = searched(left, args[0]["field"])
    tests = {
        "starts_with": left.startswith,
        "ends_with": left.endswith,
        "contains": head.__contains__,
        "matches": lambda pattern: glob(pattern, head),
    }
    return bool(tests[op](right))


def fields_in(node):
    if isinstance(node, dict):
        if "field" in node:
            return [(node["field"], node["type"])]
        return [found for child in node.values() for found in fields_in(child)]
    return [found for child in node for found in fields_in(child)] if isinstance(node, list) else []


@dataclass
class Group:
    samples: list[Any] = field(default_factory=list)  # (time, arrival, truth, event)
    firing: bool = False
    since: int | None = None
    trues: list[int] = field(default_factory=list)
    head: int | None = None
    leader: str = ""
    deadline: int = 0
    last: Any = None

    def newest(self):
        return max(self.samples, key=lambda sample: sample[:2])


class Reference:
    def __init__(self, documents, idle_s, grace_s):
        self.documents = documents
        self.idle, self.grace = idle_s * S, grace_s * S
        self.groups = defaultdict(Group)
        self.max, self.seen = {}, {}
        self.earliest = 0
        self.arrival = 0
        self.out = []
        self.refreshed = {}

    def apply(self, events, now):
        self.now = now
        for event in events:
            source, at = event["source"], event["time_us"]
            if at > self.max.setdefault(source, at):
                self.max[source] = at
                self.clock(source, at)
            for name, document in self.documents.items():
                late = self.max[source] - at > document["lateness_s"] * S
                if event["type"] == document["match"]["type"] and not late:
                    self.sample(name, document, event)
        for event in events:
            self.seen[event["source"]] = now
        return self.flush()

    def advance(self, now):
        self.now = now
        for key, group in list(self.groups.items()):
            if "absence" in self.documents[key[0]] and not group.firing and group.deadline <= now:
                self.change(key, True, group.deadline, group.last)
        for source, newest in self.max.items():
            self.clock(source, newest + now - self.seen[source] - self.idle)
        return self.flush()

    def restart(self, now):
        self.seen = dict.fromkeys(self.max, now)
        self.earliest = now + self.grace
        self.reload()

    def reload(self):
        for key, group in self.groups.items():
            if "absence" in self.documents[key[0]] and not group.firing:
                group.deadline = max(group.deadline, self.earliest)

    def flush(self):
        for key, event in self.refreshed.items():
            self.report("refresh", key, event["time_us"], event, "")
        out, self.out, self.refreshed = self.out, [], {}
        return out

    def sample(self, name, document, event):
        self.arrival += 1
        fields = list(document["group_by"])
        if "window" not in document and "absence" not in document:
            fields = ["source", *(path for path in fields if path != "source")]
        key = (name, *(read(event, path, "string") for path in fields))
        true = "when" not in document or holds(document["when"], event)
        if "window" in document:
            if true:
                self.window_sample(key, document, event)
        elif "absence" in document:
            if true:
                self.absence_sample(key, document, event)
        elif "for_s" in document:
            self.held_sample(key, document, event, true)
        else:
            self.threshold_sample(key, document, event, true)

    def threshold_sample(self, key, document, event, true):
        group, at, resolve = self.groups[key], event["time_us"], document["resolve"]
        in_order = not group.samples or at >= group.newest()[0]
        if "after_s" in resolve:
            self.expiring_sample(key, group, event, true, in_order, resolve["after_s"] * S)
        elif "when" in resolve:
            closes = not true and holds(resolve["when"], event)
            if true or closes:
                group.samples.append((at, self.arrival, true, event))
                if group.newest()[3] is event:
                    self.change(key, true, at, event, refresh=True)
            return
        elif resolve["auto"]:
            if in_order:
                self.change(key, true, at, event, refresh=True)
        elif true and not group.firing:
            self.change(key, True, at, event)
        elif true and in_order:
            self.refreshed[key] = event
        group.samples.append((at, self.arrival, true, event))

    def expiring_sample(self, key, group, event, true, in_order, after):
        at = event["time_us"]
        if in_order and group.firing and at >= max(group.trues) + after:
            self.change(key, False, max(group.trues) + after, None, "expired")
        if not true:
            return
        if group.firing:
            if in_order or at > max(group.trues):
                self.refreshed[key] = event
            group.trues.append(at)
        elif in_order or group.newest()[0] < at + after:
            group.trues = [at]
            self.change(key, True, at, event)
            self.clock_expiring(key, self.documents[key[0]], self.max[event["source"]])

    def clock_expiring(self, key, document, clock):
        group = self.groups[key]
        until = max(group.trues, default=0) + document["resolve"]["after_s"] * S
        if group.firing and clock - document["lateness_s"] * S >= until:
            self.change(key, False, until, None, "expired")

    def run_of(self, group):
        """When the newest run of true samples began, None if the newest sample is false."""
        since = None
        for at, _, true, _ in sorted(group.samples, key=lambda sample: sample[:2]):
            since = None if not true else at if since is None else since
        return since

    def held_sample(self, key, document, event, true):
        group, at = self.groups[key], event["time_us"]
        manual = document["resolve"] == {"auto": False}
        in_order = not group.samples or at >= group.newest()[0]
        if in_order:
            self.held_at(key, document, at)
        was = group.since
        group.samples.append((at, self.arrival, true, event))
        group.since = self.run_of(group)
        if group.firing and manual:
            if true and in_order:
                self.refreshed[key] = event
            return
        if group.since is None:
            if group.firing:
                self.change(key, False, at, event, "cleared")
            return
        if group.firing and in_order:
            self.refreshed[key] = event
        instant = max(group.newest()[0], self.max[event["source"]] - document["lateness_s"] * S)
        if group.firing and was != group.since and instant < group.since + document["for_s"] * S:
            self.change(key, False, at, None, "corrected")
        self.held_at(key, document, instant)

    def held_at(self, key, document, instant):
        group = self.groups[key]
        if group.firing or group.since is None:
            return
        if instant >= group.since + document["for_s"] * S:
            self.change(key, True, group.since + document["for_s"] * S, group.newest()[3])

    def window_sample(self, key, document, event):
        window, at, group = document["window"], event["time_us"], self.groups[key]
        amount = value_of(window["of"], event) if "of" in window else 0.0
        if amount is None or abs(amount) > 1e15:
            return
        if window["fn"] in {"sum", "avg"}:
            amount = round(amount * 1e9)
        step = window["over_s"] * S // 50
        bucket = at // step
        if not group.samples and not group.firing:
            group.head, group.leader = bucket, event["source"]
        elif bucket > group.head:
            while group.samples and min(group.samples)[0] + 50 <= bucket:
                self.leave(key, document, step)
            group.head = bucket
        elif bucket <= group.head - 50:
            return
        if bucket == group.head:
            group.leader = event["source"]
        group.samples.append((bucket, amount))
        self.judge_window(key, document, at, event)
        self.clock_window(key, document, self.max[group.leader])

    def clock_window(self, key, document, clock):
        group, step = self.groups[key], document["window"]["over_s"] * S // 50
        while group.samples:
            leaves = min(group.samples)[0] + 50
            if leaves * step + document["lateness_s"] * S > clock:
                return
            group.head = max(group.head, leaves)
            self.leave(key, document, step)

    def leave(self, key, document, step):
        group = self.groups[key]
        oldest = min(group.samples)[0]
        group.samples = [sample for sample in group.samples if sample[0] != oldest]
        self.judge_window(key, document, (oldest + 50) * step, None)

    def aggregate(self, document, group):
        amounts = [amount for _, amount in group.samples]
        if not amounts:
            return None
        functions: dict[str, Any] = {
            "count": len,
            "min": min,
            "max": max,
            "sum": lambda all_: sum(all_) / 1e9,
            "avg": lambda all_: sum(all_) / len(all_) / 1e9,
        }
        return functions[document["window"]["fn"]](amounts)

    def judge_window(self, key, document, at, event):
        window, group = document["window"], self.groups[key]
        amounts = [amount for _, amount in group.samples]
        on = False
        if amounts:
            scaled = round(window["threshold"] * 1e9)
            kept, bound = {
                "count": (len(amounts), window["threshold"]),
                "min": (min(amounts), window["threshold"]),
                "max": (max(amounts), window["threshold"]),
                "sum": (sum(amounts), scaled),
                "avg": (sum(amounts), scaled * len(amounts)),
            }[window["fn"]]
            on = ORDER[window["op"]](kept, bound)
        on = on or (group.firing and not document["resolve"]["auto"])
        reason = "" if on else "cleared" if event else "expired"
        self.change(key, on, at, event, reason, refresh=event is not None)

    def absence_sample(self, key, document, event):
        group = self.groups[key]
        group.deadline, group.last = self.now + document["absence"]["after_s"] * S, event
        if group.firing and document["resolve"]["auto"]:
            self.change(key, False, self.now, event, "cleared")

    def clock(self, source, clock):
        for key in list(self.groups):
            document, group = self.documents[key[0]], self.groups[key]
            if "window" in document:
                if group.leader == source:
                    self.clock_window(key, document, clock)
            elif "absence" not in document and key[1] == source:
                if "for_s" in document:
                    self.held_at(key, document, clock - document["lateness_s"] * S)
                elif "after_s" in document["resolve"]:
                    self.clock_expiring(key, document, clock)

    def change(self, key, on, at, event, reason="cleared", *, refresh=False):
        group = self.groups[key]
        if on and group.firing and refresh:
            self.refreshed[key] = event
        if on == group.firing:
            return
        group.firing = on
        if not on:
            self.refreshed.pop(key, None)
        self.report("open" if on else "resolve", key, at, event, "" if on else reason)

    def report(self, kind, key, at, event, reason):
        document = self.documents[key[0]]
        operands = {}
        if event is not None:
            nodes = [
                document.get("when"),
                document["resolve"].get("when"),
                document.get("window", {}).get("of"),
            ]
            operands = {path: told(read(event, path, type_)) for path, type_ in fields_in(nodes)}
        if "window" in document:
            operands["aggregate"] = self.aggregate(document, self.groups[key])
        self.out.append((key, kind, at, operands, reason))
