"""Rules that cannot be judged are taken out of force, so that a tenant's defect stays its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tlsy.eventlog.errors import TenantPaused
from tlsy.rules_engine.domain.canonical import NotCanonicalError, load_rule
from tlsy.rules_engine.domain.compiler import compile_rules
from tlsy.rules_engine.domain.engine import Engine, JudgingFailed
from tlsy.rules_engine.domain.incident import superseded
from tlsy.rules_engine.handlers.messages import to_rule
from tlsy.rules_engine.handlers.turn import SLICE
from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from tlsy.rules_engine.domain.ast import VersionId
    from tlsy.rules_engine.domain.codegen import Version
    from tlsy.rules_engine.domain.compiler import CompiledRuleSet
    from tlsy.rules_engine.domain.engine import EngineLimits
    from tlsy.rules_engine.domain.events import Event
    from tlsy.rules_engine.domain.problems import RuleLimits
    from tlsy.rules_engine.domain.rows import StateRow
    from tlsy.rules_engine.handlers.effects import Effects
    from tlsy.rules_engine.handlers.metrics import RulesMetrics
    from tlsy.rules_engine.ports import EngineStates, Incidents, Rules
    from tlsy.tenancy.unit_of_work import UnitOfWork

REASON: Final = "JUDGING_FAILED"


async def compiled(versions: Collection[Version], before: CompiledRuleSet | None) -> CompiledRuleSet:
    """The rules as programs, made in another thread. Raises JudgingFailed."""
    try:
        return await asyncio.to_thread(compile_rules, versions, before)
    except Exception as error:
        raise JudgingFailed(version for version, _ in versions) from error


async def load(engine: Engine, rows: Iterable[StateRow], since_us: int) -> None:
    """Restores what was stored; everybody else gets a turn meanwhile. Raises JudgingFailed."""
    for _ in engine.loading(rows, since_us, SLICE):
        await asyncio.sleep(0)


class Halting:
    """In the transaction in which it showed, under the rule set's lock."""

    def __init__(
        self,
        *,
        rules: Rules,
        states: EngineStates,
        incidents: Incidents,
        effects: Effects,
        limits: RuleLimits,
        engine_limits: EngineLimits,
        metrics: RulesMetrics,
    ) -> None:
        self._rules = rules
        self._states = states
        self._incidents = incidents
        self._effects = effects
        self._limits = limits
        self._engine_limits = engine_limits
        self._metrics = metrics
        self._logger = get_logger("evaluation")

    async def halt(self, tx: UnitOfWork, slug: str, failed: JudgingFailed) -> None:
        """Takes the guilty rules out of force; after that the work can be tried again.

        If none is in force, the state of those versions is what cannot be read: it is given up, and what they
        opened is resolved.

        Raises:
            TenantPaused: there is nothing to take away: the tenant's records have to wait for a new release.
        """
        suspects = failed.suspects
        if len(suspects) > 1:
            suspects = frozenset(await self._failing_alone(tx, failed)) or suspects
        await self._halt(tx, slug, suspects, failed)

    async def halt_proven(self, tx: UnitOfWork, slug: str, error: Exception) -> None:
        """After a failure outside the engine: takes the live rules out of force that fail by themselves.

        Raises:
            TenantPaused: none does: it is no rule that is wrong. The records wait for a new release.
        """
        failed = JudgingFailed(version for version, _ in await self._states.live(tx))
        failed.__cause__ = error
        guilty = await self._failing_alone(tx, failed)
        if not guilty:
            self._logger.error("a tenant's events cannot be judged, and no rule is to blame", exc_info=error)
            raise TenantPaused(REASON, "the tenant's events cannot be judged") from error
        await self._halt(tx, slug, guilty, failed)

    async def _halt(
        self, tx: UnitOfWork, slug: str, guilty: Collection[VersionId], failed: JudgingFailed
    ) -> None:
        halted = await self._rules.halt(tx, guilty, self._effects.now(), REASON)
        self._logger.error(
            "rules were taken out of force",
            rules=[rule.rule_id for rule in halted],
            versions=sorted(guilty),
            exc_info=failed.__cause__,
        )
        if halted:
            set_version = await self._rules.bump_set(tx)
            for rule in halted:
                message = to_rule(rule, slug, tx.tenant_id)
                self._effects.rule_changed(tx, message, set_version)
                details = {"reason": REASON, "version": message.live_version}
                self._effects.audit_duty(tx, "halt-rule", message.name, details)
            self._metrics.halted.inc(len(halted))
        elif await self._states.forget(tx, guilty):
            await self._supersede(tx, slug, guilty)
        else:
            raise TenantPaused(REASON, "the tenant's rules cannot be judged") from failed

    async def _supersede(self, tx: UnitOfWork, slug: str, versions: Collection[VersionId]) -> None:
        """Resolves what these versions opened: no engine knows any more what fires. The first are told."""
        now_us, told = self._effects.now_us(), 0
        while found := await self._incidents.of_versions(tx, versions, SLICE):
            after = [
                replace(
                    stored,
                    incident=superseded(stored.incident, now_us),
                    firing_groups=0,
                    revision=stored.revision + 1,
                )
                for stored in found
            ]
            await self._incidents.put(tx, after)
            tellable = after[: SLICE - told]
            for stored in tellable:
                self._effects.incident_changed(tx, stored, "resolved", slug)
            told += len(tellable)
            self._metrics.incidents.labels("resolved").inc(len(after))
            self._metrics.left_out.labels("changes_untold").inc(len(after) - len(tellable))
            await asyncio.sleep(0)

    async def _failing_alone(self, tx: UnitOfWork, failed: JudgingFailed) -> list[VersionId]:
        """Those of the suspects that fail by themselves."""
        rows = await self._states.load(tx)
        found = []
        for version, document in await self._states.documents(tx, failed.suspects):
            try:
                alone = compile_rules([(version, load_rule(document.encode(), self._limits))])
                await self._judge_alone(alone, rows, failed.event)
            except NotCanonicalError:
                continue
            except Exception:  # noqa: BLE001 - whatever it is, it is this version's
                found.append(version)
            await asyncio.sleep(0)
        return found

    async def _judge_alone(
        self, alone: CompiledRuleSet, rows: Sequence[StateRow], event: Event | None
    ) -> None:
        now_us = self._effects.now_us()
        engine = Engine(alone, self._engine_limits)
        await load(engine, rows, now_us)
        if event is not None:
            engine.apply([event], now_us)
