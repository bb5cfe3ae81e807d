"""What somebody who knows the rules of `rules.py` beforehand would write: one function, no engine."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tlsy.rules_engine.domain.turn import Transition

if TYPE_CHECKING:
    from tlsy.rules_engine.domain.events import Event

SECOND_US: Final = 1_000_000
LATENESS_US: Final = 30 * SECOND_US
BUCKETS: Final = 50
NEVER: Final = 2**63
RANK: Final = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}
SITES: Final = ("paris", "lyon", "nantes", "lille")


class Source:
    """One source: clock, order keys, timers, and by subject the names that fire and the conditions held."""

    __slots__ = ("due_us", "firing", "held", "max_us", "name", "newest", "timers")

    def __init__(self, name: str, at_us: int) -> None:
        self.name = name
        self.max_us = at_us
        self.due_us = NEVER
        self.timers: list[tuple[int, int, Any]] = []
        self.newest: dict[str, int] = {}
        self.firing: dict[str, set[str]] = {}
        self.held: dict[str, dict[str, Held]] = {}


class Held:
    """A condition that has been true since `since_us`."""

    __slots__ = (
        "alive",
        "deadline_us",
        "dirty",
        "event",
        "false_us",
        "firing",
        "for_us",
        "name",
        "newest_us",
        "since_us",
        "source",
        "subject",
        "trues",
    )

    def __init__(self, name: str, source: Source, event: Event, false_us: int | None, for_us: int) -> None:
        self.name = name
        self.source = source
        self.subject = event.subject
        self.event = event
        self.false_us = false_us
        self.since_us = self.newest_us = event.time_us
        self.for_us = for_us
        self.deadline_us = event.time_us + for_us
        self.firing = False
        self.trues = [event.time_us]
        self.dirty = True
        self.alive = True


class Sum:
    """A sliding sum of one site."""

    __slots__ = (
        "counts",
        "dirty",
        "end",
        "firing",
        "first",
        "head",
        "homes",
        "leader",
        "leaves_us",
        "name",
        "site",
        "sum",
        "sums",
        "threshold",
        "total",
        "width_us",
    )

    def __init__(self, site: str, width_us: int, threshold: int, name: str) -> None:
        self.name = name
        self.site = site
        self.width_us = width_us
        self.threshold = threshold
        self.head = self.first = self.end = self.leaves_us = 0
        self.leader: Source | None = None
        self.homes: dict[Source, int] = {}
        self.counts = [0] * BUCKETS
        self.sums = [0] * BUCKETS
        self.total = self.sum = 0
        self.firing = False
        self.dirty = False


class Handwritten:
    """The tables of the rules and the state; `apply` is the function."""

    def __init__(self, thresholds: Any, held: Any, windows: Any, versions: dict[str, Any]) -> None:
        self.versions = versions
        self.thresholds = {
            disk: ([bound for bound, _ in sorted(rules)], [name for _, name in sorted(rules)])
            for disk, rules in thresholds.items()
        }
        self.held = {
            disk: ([rule[0] for rule in sorted(rules)], [rule[1:] for rule in sorted(rules)])
            for disk, rules in held.items()
        }
        self.sums: dict[str, list[Sum]] = {}
        for site, width_us, threshold, name in windows:
            self.sums.setdefault(site, []).append(Sum(site, width_us, round(threshold * 1e9), name))
        self.sources: dict[str, Source] = {}
        self.sequence = 0
        self.late_events = 0
        self.transitions: list[Transition] = []
        self.refreshed: dict[Any, Event] = {}
        self.dirty: list[Any] = []
        self.changed: dict[tuple[str, str, str], int] = {}

    def apply(self, events: list[Event]) -> tuple[list[Transition], list[Any]]:  # noqa: C901, PLR0912, PLR0915 - one loop
        """The transitions of a batch and the state rows that changed."""
        sources, thresholds, held_rules, sums = self.sources, self.thresholds, self.held, self.sums
        refreshed, dirty = self.refreshed, self.dirty
        touched = {}
        source = None
        for e in events:
            name = e.source
            if source is None or source.name != name:
                source = sources.get(name)
                if source is None:
                    source = sources[name] = Source(name, e.time_us)
                touched[name] = source
            t = e.time_us
            if t > source.max_us:
                source.max_us = t
                if t >= source.due_us:
                    self.run_timers(source, t)
            if e.type != "disk.used":
                continue
            if source.max_us - t > LATENESS_US:
                self.late_events += 1
                continue
            subject = e.subject
            hits: Any = ()
            holding = hits
            if (labels := e.labels).get("kind") == "ssd" and RANK[e.severity] >= 1:
                v, site = e.value, e.site
                if v is not None and site in SITES:
                    disk = labels.get("disk")
                    found = thresholds.get(disk)
                    if found is not None and v > found[0][0]:
                        hits = found[1][: bisect_left(found[0], v)]
                    found = held_rules.get(disk)
                    if found is not None and v > found[0][0]:
                        holding = found[1][: bisect_left(found[0], v)]
                    n = round(v * 1e9)
                    for g in sums.get(site, ()):
                        b = t // g.width_us
                        if g.total and g.head <= b < g.end:
                            g.head = b
                            cell = b % BUCKETS
                            g.counts[cell] += 1
                            g.total += 1
                            g.sums[cell] += n
                            g.sum += n
                            if (g.sum >= g.threshold) != g.firing:
                                self.flip(g, t, e)
                            elif g.firing:
                                refreshed[g] = e
                            if g.leader is not source:
                                g.leader = source
                                if g.homes.get(source, NEVER) > g.leaves_us:
                                    self.expire(g, source.max_us)
                            if not g.dirty:
                                g.dirty = True
                                dirty.append(g)
                        else:
                            self.add(g, b, n, t, e, source)
            p = source.newest.get(subject)
            if p is not None and t < p:
                if holding or subject in source.held:
                    self.amend(source, subject, t, holding)
                continue
            source.newest[subject] = t
            if hits or subject in source.firing:
                self.cross(source, subject, t, e, hits)
            if holding or subject in source.held:
                self.hold(source, subject, p, t, e, holding)
        return self.finish(touched)

    def cross(self, source: Source, subject: str, t: int, e: Event, hits: Any) -> None:
        firing = source.firing.get(subject)
        if firing is None:
            firing = source.firing[subject] = set()
        for name in hits:
            if name in firing:
                self.refreshed[name, source, subject] = e
            else:
                firing.add(name)
                self.say("open", name, source.name, subject, t, e)
                self.changed[name, source.name, subject] = t
        if len(firing) > len(hits):
            for name in firing.difference(hits):
                firing.discard(name)
                self.refreshed.pop((name, source, subject), None)
                self.say("resolve", name, source.name, subject, t, e, "cleared")
                self.changed[name, source.name, subject] = t
            if not firing:
                del source.firing[subject]

    def hold(  # noqa: C901, PLR0912 - inlined for speed
        self, source: Source, subject: str, p: int | None, t: int, e: Event, holding: Any
    ) -> None:
        groups = source.held.get(subject)
        if groups is None:
            groups = source.held[subject] = {}
        dirty = self.dirty
        for g in groups.values():
            if t >= g.deadline_us:
                self.fire(g)
        for for_us, name in holding:
            known = groups.get(name)
            if known is None:
                new = groups[name] = Held(name, source, e, p, for_us)
                dirty.append(new)
                self.wake(source, new.deadline_us + LATENESS_US, new)
                continue
            g = known
            if g.firing:
                self.refreshed[g] = e
            g.event = e
            g.newest_us = t
            trues = g.trues
            trues.append(t)
            if trues[0] < source.max_us - LATENESS_US:
                del trues[: bisect_right(trues, source.max_us - LATENESS_US - 1)]
            if not g.dirty:
                g.dirty = True
                dirty.append(g)
        if len(groups) > len(holding):
            true = {name for _, name in holding}
            for name in [name for name in groups if name not in true]:
                g = groups.pop(name)
                if g.firing:
                    self.refreshed.pop(g, None)
                    self.say("resolve", name, source.name, subject, t, e, "cleared")
                g.alive = False
                if not g.dirty:
                    g.dirty = True
                    dirty.append(g)
            if not groups:
                del source.held[subject]

    def amend(self, source: Source, subject: str, t: int, holding: Any) -> None:
        true = {name for _, name in holding}
        for name, g in source.held.get(subject, {}).items():
            if not g.dirty:
                g.dirty = True
                self.dirty.append(g)
            if name in true:
                if t < g.since_us and g.false_us is not None and t < g.false_us:
                    continue
                insort(g.trues, t)
                since_us = min(t, g.since_us)
            elif t < g.since_us:
                g.false_us = t if g.false_us is None else max(g.false_us, t)
                continue
            else:
                g.false_us = t
                since_us = g.trues[bisect_right(g.trues, t)]
            if since_us == g.since_us:
                continue
            g.since_us = since_us
            held = max(g.newest_us, source.max_us - LATENESS_US) >= since_us + g.for_us
            if held and g.firing:
                continue
            g.deadline_us = since_us + g.for_us
            if held:
                self.fire(g)
                continue
            if g.firing:
                g.firing = False
                self.refreshed.pop(g, None)
                self.say("resolve", name, source.name, subject, t, None, "corrected")
            self.wake(source, g.deadline_us + LATENESS_US, g)

    def fire(self, g: Held) -> None:
        self.say("open", g.name, g.source.name, g.subject, g.deadline_us, g.event)
        g.firing = True
        g.deadline_us = NEVER
        if not g.dirty:
            g.dirty = True
            self.dirty.append(g)

    def wake(self, source: Source, key_us: int, g: Any) -> None:
        self.sequence += 1
        heappush(source.timers, (key_us, self.sequence, g))
        source.due_us = source.timers[0][0]

    def run_timers(self, source: Source, t: int) -> None:
        timers = source.timers
        while timers and timers[0][0] <= t:
            key_us, _, g = heappop(timers)
            if isinstance(g, Sum):
                if g.homes.get(source) == key_us:
                    del g.homes[source]
                if g.leader is source:
                    self.expire(g, t)
            elif g.alive and not g.firing:
                if g.deadline_us + LATENESS_US <= t:
                    self.fire(g)
                elif g.deadline_us + LATENESS_US > key_us:
                    self.wake(source, g.deadline_us + LATENESS_US, g)
        source.due_us = timers[0][0] if timers else NEVER

    def add(self, g: Sum, b: int, n: int, t: int, e: Event, source: Source) -> None:
        if not g.total:
            g.head, g.leader = b, source
        elif b > g.head:
            while g.total and g.first + BUCKETS <= b:
                self.leave(g)
            g.head = b
        elif b <= g.head - BUCKETS:
            return
        if b == g.head:
            g.leader = source
        if b < g.first or not g.total:
            g.first = b
            g.end = b + BUCKETS
            g.leaves_us = g.end * g.width_us + LATENESS_US
        g.counts[b % BUCKETS] += 1
        g.total += 1
        g.sums[b % BUCKETS] += n
        g.sum += n
        if not g.dirty:
            g.dirty = True
            self.dirty.append(g)
        if (g.sum >= g.threshold) != g.firing:
            self.flip(g, t, e)
        elif g.firing:
            self.refreshed[g] = e
        leader = g.leader
        assert leader is not None
        self.expire(g, leader.max_us)

    def expire(self, g: Sum, clock_us: int) -> None:
        source = g.leader
        assert source is not None
        while g.total:
            leaves = g.first + BUCKETS
            key_us = leaves * g.width_us + LATENESS_US
            if key_us > clock_us:
                if key_us < g.homes.get(source, NEVER):
                    g.homes[source] = key_us
                    self.wake(source, key_us, g)
                return
            g.head = max(g.head, leaves)
            self.leave(g)

    def leave(self, g: Sum) -> None:
        first = g.first
        cell = first % BUCKETS
        g.total -= g.counts[cell]
        g.sum -= g.sums[cell]
        g.counts[cell] = g.sums[cell] = 0
        if g.total:
            b = first + 1
            while not g.counts[b % BUCKETS]:
                b += 1
            g.first = b
            g.end = b + BUCKETS
            g.leaves_us = g.end * g.width_us + LATENESS_US
        if not g.dirty:
            g.dirty = True
            self.dirty.append(g)
        if g.firing and not (g.total and g.sum >= g.threshold):
            self.flip(g, (first + BUCKETS) * g.width_us, None)

    def flip(self, g: Sum, at_us: int, e: Event | None) -> None:
        g.firing = not g.firing
        reason = "" if g.firing else "expired" if e is None else "cleared"
        if not g.firing:
            self.refreshed.pop(g, None)
        self.say_sum("open" if g.firing else "resolve", g, at_us, e, reason)

    def say(
        self, kind: Any, name: str, source: str, subject: str, at_us: int, e: Event | None, reason: Any = ""
    ) -> None:
        self.transitions.append(
            Transition(
                kind=kind,
                rule=name,  # type: ignore[arg-type]  # names are names
                version=self.versions[name],
                group=(source, subject),
                at_us=at_us,
                operands={} if e is None else _operands(e),
                reason=reason,
            )
        )

    def say_sum(self, kind: Any, g: Sum, at_us: int, e: Event | None, reason: Any = "") -> None:
        operands: dict[str, Any] = {}
        if e is not None:
            operands = _operands(e)
            del operands["labels.disk"]
        operands["aggregate"] = g.sum / 1e9 if g.total else None
        self.transitions.append(
            Transition(
                kind=kind,
                rule=g.name,  # type: ignore[arg-type]  # the same
                version=self.versions[g.name],
                group=(g.site,),
                at_us=at_us,
                operands=operands,
                reason=reason,
            )
        )

    def finish(self, touched: dict[str, Source]) -> tuple[list[Transition], list[Any]]:
        """Refreshes, and the rows of what changed, packed as the engine packs them."""
        for key, e in self.refreshed.items():
            if isinstance(key, Sum):
                self.say_sum("refresh", key, e.time_us, e)
            elif isinstance(key, Held):
                self.say("refresh", key.name, key.source.name, key.subject, e.time_us, e)
            else:
                self.say("refresh", key[0], key[1].name, key[2], e.time_us, e)
        pack = msgspec.msgpack.encode
        rows: list[Any] = []
        for source in touched.values():
            cut_us = source.max_us - LATENESS_US
            newest = [item for item in source.newest.items() if item[1] > cut_us]
            rows.append((source.name, pack([source.max_us, newest])))
        for (name, source_name, subject), at_us in self.changed.items():
            firing = name in self.sources[source_name].firing.get(subject, ())
            rows.append((name, source_name, subject, pack([firing, at_us]) if firing else None))
        for g in self.dirty:
            g.dirty = False
            if isinstance(g, Sum):
                filled = [b for b in range(g.first, g.head + 1) if g.counts[b % BUCKETS]]
                leader = g.leader.name if g.leader else ""
                ages = [g.head - b for b in filled]
                counts = [g.counts[b % BUCKETS] for b in filled]
                amounts = [str(g.sums[b % BUCKETS]) for b in filled]
                rows.append((g.name, g.site, pack([g.firing, g.head, leader, ages, counts, amounts])))
            elif g.alive:
                times = [g.since_us, g.newest_us, g.false_us, g.trues, g.deadline_us]
                rows.append((g.name, g.source.name, g.subject, pack([g.firing, times, _operands(g.event)])))
            else:
                rows.append((g.name, g.source.name, g.subject, None))
        transitions = self.transitions
        self.transitions = []
        self.dirty.clear()
        self.refreshed.clear()
        self.changed.clear()
        return transitions, rows


def _operands(e: Event) -> dict[str, Any]:
    labels = e.labels
    return {
        "site": e.site,
        "severity": e.severity,
        "labels.kind": labels.get("kind"),
        "labels.disk": labels.get("disk"),
        "value": e.value,
        "subject": e.subject,
    }
