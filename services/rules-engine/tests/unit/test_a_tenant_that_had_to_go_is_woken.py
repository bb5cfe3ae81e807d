from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from prometheus_client import CollectorRegistry

from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.rules_engine.domain.canonical import canonical_json, version_id
from tlsy.rules_engine.domain.engine import EngineLimits
from tlsy.rules_engine.domain.incident import ReopenPolicy
from tlsy.rules_engine.domain.problems import RuleLimits
from tlsy.rules_engine.handlers.evaluation import Evaluation, EvaluationLimits
from tlsy.rules_engine.handlers.memory import Memories
from tlsy.rules_engine.handlers.metrics import RulesMetrics
from tlsy.rules_engine.ports import SetState
from tlsy.runtime.ids import TenantId

from .rules import START_US, S, rule

ONE, OTHER = TenantId(UUID(int=1)), TenantId(UUID(int=2))
SILENT = rule(absence={"after_s": 90})


class Database:
    """The ports of one rule per tenant; a transaction of `ONE` waits until it may go on."""

    def __init__(self):
        self.began, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def enter(self, tx):
        return SetState(version=1, stamp=UUID(int=0), clears=1)

    async def live(self, tx):
        return [(version_id(SILENT), canonical_json(SILENT).decode())]

    async def load(self, tx):
        return []

    async def save(self, tx, *what):
        pass

    async def take_clears(self, tx):
        if tx.tenant_id == ONE:
            self.began.set()
            await self.may_go_on.wait()
        return []


def evaluation(database: Any, memories: Memories) -> Evaluation:
    effects: Any = SimpleNamespace(
        now_us=lambda: START_US, monotonic=lambda: 0.0, new_id=uuid4, used=lambda *what, **how: None
    )
    unused: Any = None
    return Evaluation(
        memories=memories,
        states=database,
        incidents=database,
        observed=database,
        effects=effects,
        halting=unused,
        limits=EvaluationLimits(
            engine=EngineLimits(), rules=RuleLimits(), reopen=ReopenPolicy(300), max_fields=100
        ),
        metrics=RulesMetrics(CollectorRegistry()),
    )


async def test_a_tenant_that_had_to_go_while_it_was_judged_is_woken_when_it_is_due():
    database, memories = Database(), Memories(1)
    made = evaluation(database, memories)

    async def judge(tenant_id):
        tx: Any = SimpleNamespace(tenant_id=tenant_id)
        event = ingestion_pb2.Event(source="s", id="1", time_us=START_US, type="temperature", value=95)
        await made.judge(tx, "a", 0, [[event]], again=False)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(judge(ONE))
        await database.began.wait()
        await judge(OTHER)
        database.may_go_on.set()
    assert {tenant_id for tenant_id, _ in memories.due(START_US + 90 * S)} == {ONE, OTHER}
