"""Every principal of every tenant asks every RPC for what is another tenant's."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Final, Literal

import grpc

from tlsy.contracts.options.v1 import options_pb2

from .calls import RPCS
from .names import REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

    from .calls import Answer, Rpc
    from .world import Tenant, World

_AT_ONCE: Final = 24
_PRINCIPALS: Final = ("client-admin", "operator", "agent", "exchanged")
#: Grafted calls reach the databases, so of each RPC and each pair of tenants only every fifth is made.
_GRAFT_EVERY: Final = 5
#: "foreign": the other's names as they are; "grafted": its ids under one's own name.
Kind = Literal["foreign", "grafted"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of a principal for something of another tenant's."""

    rpc: Rpc
    request: Message
    caller: Tenant
    principal: str
    victim: Tenant
    kind: Kind

    @property
    def token(self) -> str:
        return "" if self.rpc.scope == options_pb2.SCOPE_PUBLIC else self.caller.tokens[self.principal]

    @property
    def of_ancestor(self) -> bool:
        """Whether the caller's tenant made the victim: the operation is its own, and it may act there."""
        ours = self.rpc.name in {"ExchangeToken", "GetOperation", "WaitOperation"}
        return ours and self.victim.parent == self.caller.slug

    def __str__(self) -> str:
        return f"{self.caller.slug}/{self.principal} asks {self.rpc.name} of {self.victim.slug}, {self.kind}"


@dataclass(slots=True)
class Report:
    """What came of all attempts: `outcomes` counts (RPC, kind, code, reason)."""

    leaks: list[str] = field(default_factory=list)
    let_in: list[str] = field(default_factory=list)
    outcomes: Counter[tuple[str, Kind, str, str]] = field(default_factory=Counter)

    def note(self, attempt: Attempt, answer: Answer, leaked: list[str]) -> None:
        rpc = attempt.rpc
        self.outcomes[rpc.name, attempt.kind, answer.code.name, answer.reason] += 1
        self.leaks += [f"{attempt} and reads {canary}" for canary in leaked]
        names_others = attempt.kind == "foreign" and rpc.name != "GetJwks"
        if names_others and answer.code is grpc.StatusCode.OK and not attempt.of_ancestor:
            self.let_in.append(str(attempt))


def attempts(world: World, seed: int) -> list[Attempt]:
    """In an order that mixes tenants, so that connections go from one to another."""
    # Some requests name nobody: those are made once by each principal.
    different = {
        (each.rpc.name, each.caller.slug, each.principal, each.request.SerializeToString()): each
        for each in _attempts(world)
    }
    made = list(different.values())
    random.Random(seed).shuffle(made)
    return made


def _attempts(world: World) -> Iterator[Attempt]:
    for turn, (caller, victim) in enumerate(permutations(world.tenants.values(), 2)):
        foreign = victim.names.known_to(caller.names)
        grafted = victim.names.grafted(caller.names)
        for number, rpc in enumerate(RPCS):
            principal = _PRINCIPALS[(turn + number) % len(_PRINCIPALS)]
            request = REQUESTS[rpc.name](foreign)
            yield Attempt(rpc, request, caller, principal, victim, "foreign")
            moved = REQUESTS[rpc.name](grafted)
            if moved != request and (turn + number) % _GRAFT_EVERY == 0:
                yield Attempt(rpc, moved, caller, principal, victim, "grafted")


async def run(world: World, seed: int) -> Report:
    """All attempts, many at once, on both replicas in turn."""
    report = Report()
    waiting = iter(enumerate(attempts(world, seed)))

    async def work() -> None:
        for number, attempt in waiting:
            tag = f"{attempt.caller.slug}.{number}"
            answer = await world.client.ask(attempt.rpc, attempt.request, attempt.token, number, tag)
            allowed = world.may_see(attempt.caller, attempt.rpc.service)
            report.note(attempt, answer, world.leaked(answer.text, allowed))

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return report
