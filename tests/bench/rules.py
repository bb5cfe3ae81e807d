"""The rules engine against one hand-written Python function that does the same job.

For 1, 20 and 200 rules of one tenant and event type the same batches go through the engine and through
`Handwritten.apply`, a single loop over the events with the rules' tables written out: source clocks and
lateness, order keys, thresholds, held conditions and sliding sums with their timers. Both must report the
same transitions. Prints one JSON object as its last line; exits 1 if the ratio is over 1.5.
"""

from __future__ import annotations

import gc
import importlib
import json
import random
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tlsy.rules_engine.domain.ast import Rule, RuleName, VersionId
from tlsy.rules_engine.domain.canonical import version_id
from tlsy.rules_engine.domain.compiler import CompiledRuleSet, compile_rules
from tlsy.rules_engine.domain.engine import Engine, EngineLimits
from tlsy.rules_engine.domain.events import Event
from tlsy.rules_engine.domain.problems import ObservedSchema, RuleLimits
from tlsy.rules_engine.domain.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.rules_engine.domain.turn import Transition

BATCH: Final = 500
BATCHES: Final = 80
ROUNDS: Final = 8
MOST: Final = 1.5
SECOND_US: Final = 1_000_000
BUCKETS: Final = 50
START_US: Final = 1_700_000_000 * SECOND_US
SITES: Final = ("paris", "lyon", "nantes", "lille")
DISKS: Final = 10


@dataclass(frozen=True, slots=True)
class Specs:
    """The rules as tables: disk -> [(bound, name)], disk -> [(bound, for_us, name)], name -> window."""

    thresholds: dict[str, list[tuple[float, str]]]
    held: dict[str, list[tuple[float, int, str]]]
    windows: list[tuple[str, int, float, str]]  # site, bucket width in µs, threshold, name


def specs(count: int) -> Specs:
    """Of ten rules seven are thresholds, two held conditions, one a sum over a window."""
    found = Specs(defaultdict(list), defaultdict(list), [])
    for number in range(count):
        step = number // DISKS
        name, disk = f"r{number}", f"disk{(number + step) % DISKS}"
        if number % 10 == 9:
            width_us = (60 + 30 * (step % 4)) * SECOND_US // BUCKETS
            found.windows.append((SITES[step % 4], width_us, 5_000.0 + 500 * step, name))
        elif number % 10 >= 7:
            found.held[disk].append((88.0 + step / 2, (20 + 5 * (step % 3)) * SECOND_US, name))
        else:
            found.thresholds[disk].append((90.0 + step / 2, name))
    return found


def documents(found: Specs) -> list[dict[str, Any]]:
    """The same tables as rule documents."""
    made = []
    guard = [
        {"in": [{"field": "site"}, list(SITES)]},
        {"ge": [{"field": "severity"}, "info"]},
        {"eq": [{"field": "labels.kind"}, "ssd"]},
    ]

    def document(name: str, condition: dict[str, Any], **more: Any) -> None:
        made.append(
            {
                "schema": "tlsy.rule/1",
                "name": name,
                "match": {"type": "disk.used"},
                "incident": {"severity": "error", "summary": "{subject}"},
                "when": {"and": [*guard, condition]},
                **more,
            }
        )

    for disk, rules in found.thresholds.items():
        for bound, name in rules:
            document(name, {"and": [_is("labels.disk", disk), {"gt": [{"field": "value"}, bound]}]})
    for disk, held in found.held.items():
        for bound, for_us, name in held:
            condition = {"and": [_is("labels.disk", disk), {"gt": [{"field": "value"}, bound]}]}
            document(name, condition, for_s=for_us // SECOND_US)
    for site, width_us, threshold, name in found.windows:
        window = {
            "fn": "sum",
            "of": {"field": "value"},
            "over_s": width_us * BUCKETS // SECOND_US,
            "op": "ge",
            "threshold": threshold,
        }
        document(name, _is("site", site), window=window, group_by=["site"])
    return made


def _is(field: str, text: str) -> dict[str, Any]:
    return {"eq": [{"field": field}, text]}


def stream(event_type: str = "disk.used") -> list[tuple[list[Event], int]]:
    """Batches of events with when they came: 40 hosts, three disks each, one event in 50 a little late."""
    dice = random.Random(7)
    batches, now_us = [], START_US
    levels: dict[tuple[str, str], float] = {}
    for _ in range(BATCHES):
        batch = []
        for _ in range(BATCH):
            now_us += 12_000
            host = f"host-{dice.randrange(40)}"
            disk = f"disk{dice.randrange(DISKS)}"
            level = levels.get((host, disk), dice.uniform(20, 95)) + dice.uniform(-1.5, 1.5)
            levels[host, disk] = level = min(max(level, 5.0), 99.9)
            late_us = dice.randrange(5 * SECOND_US) if dice.random() < 0.02 else 0
            batch.append(
                Event(
                    source=host,
                    id=str(now_us),
                    time_us=now_us - late_us,
                    type=event_type,
                    subject=disk,
                    site=SITES[int(host[5:]) % 4],
                    severity="warning",
                    value=level,
                    labels={"disk": disk, "kind": "ssd" if int(host[5:]) % 5 else "hdd", "a": "1", "b": "2"},
                )
            )
        batches.append((batch, now_us))
    return batches


def compiled_of(found: Specs) -> tuple[CompiledRuleSet, dict[str, VersionId]]:
    """The rules as the service would compile them, and their versions by name."""
    rules = []
    for document in documents(found):
        rule = validate(document, ObservedSchema(), RuleLimits())
        if not isinstance(rule, Rule):
            raise SystemExit(f"not a rule: {rule}")
        rules.append((version_id(rule), rule))
    return compile_rules(rules), {rule.name: version for version, rule in rules}


def measure(run: Callable[[], object]) -> float:
    """Seconds of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(count: int, batches: list[tuple[list[Event], int]]) -> tuple[float, float, int]:
    """µs per event of the engine and of the hand-written function, and how many incidents opened.

    The two take turns batch by batch; of each batch the fastest of ROUNDS counts, so that other processes on
    the machine disturb neither. The garbage collector is off: one side would pay for the other's garbage.
    """
    handwritten = importlib.import_module("tests.bench.handwritten")
    found = specs(count)
    compiled, versions = compiled_of(found)
    hand = handwritten.Handwritten(found.thresholds, found.held, found.windows, versions)
    opened = _same(Engine(compiled, EngineLimits()), hand, batches)
    ours, theirs = [1.0] * len(batches), [1.0] * len(batches)
    for _ in range(ROUNDS):
        engine = Engine(compiled, EngineLimits())
        hand = handwritten.Handwritten(found.thresholds, found.held, found.windows, versions)
        gc.collect()
        gc.disable()
        for index, (batch, now_us) in enumerate(batches):
            ours[index] = min(ours[index], measure(partial(engine.apply, batch, now_us)))
            theirs[index] = min(theirs[index], measure(partial(hand.apply, batch)))
        gc.enable()
    events = BATCH * len(batches)
    return sum(ours) / events * 1e6, sum(theirs) / events * 1e6, opened


def _same(engine: Engine, hand: Any, batches: list[tuple[list[Event], int]]) -> int:
    """Both report the same for every batch; how many incidents opened."""
    opened = 0
    for batch, now_us in batches:
        left = engine.apply(batch, now_us)
        right, rows = hand.apply(batch)
        if _by_group(left.transitions) != _by_group(right):
            raise SystemExit("the engine and the hand-written function disagree")
        if abs(len(left.rows) - len(rows)) > len(left.rows) // 10:
            raise SystemExit(f"the state that is stored differs: {len(left.rows)} and {len(rows)} rows")
        opened += sum(transition.kind == "open" for transition in right)
    return opened


def _by_group(transitions: list[Transition]) -> dict[tuple[RuleName, Any], list[Transition]]:
    found = defaultdict(list)
    for transition in transitions:
        found[transition.rule, transition.group].append(transition)
    return found


def main() -> int:
    """Measures and prints."""
    batches = stream()
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    opened: dict[str, int] = {}
    for count in (1, 20, 200):
        ours[str(count)], theirs[str(count)], opened[str(count)] = compare(count, batches)
    found = documents(specs(200))
    other = stream("other")
    idle = Engine(compiled_of(specs(200))[0], EngineLimits())
    no_match_s = sum(
        min(measure(partial(idle.apply, batch, now_us)) for _ in range(ROUNDS)) for batch, now_us in other
    )
    rules = [validate(document, ObservedSchema(), RuleLimits()) for document in found]
    versions = [(version_id(rule), rule) for rule in rules if isinstance(rule, Rule)]
    compile_s = min(measure(partial(compile_rules, versions)) for _ in range(ROUNDS))
    ratio = max(ours[count] / theirs[count] for count in ours)
    figures = {
        "us_per_event": {count: round(us, 3) for count, us in ours.items()},
        "handwritten_us": {count: round(us, 3) for count, us in theirs.items()},
        "ratio": round(ratio, 3),
        "no_match_us": round(no_match_s / BATCH / len(other) * 1e6, 3),
        "compile_ms_200": round(compile_s * 1e3, 1),
        "incidents_opened": opened,
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return int(ratio > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
