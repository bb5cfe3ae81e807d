"""Composition of the rules engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.events import TOPICS
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2, rules_engine_pb2_grpc
from tlsy.eventlog.consumer import Consumer
from tlsy.eventlog.dead_letters import DeadLetters
from tlsy.eventlog.fence import PartitionFence
from tlsy.eventlog.kafka import partition_of
from tlsy.eventlog.kafka_readers import KafkaGroupReader
from tlsy.eventlog.parking import Parking
from tlsy.rpc.assembly import assemble
from tlsy.rpc.server import Served
from tlsy.rules_engine import consumers
from tlsy.rules_engine.adapters.postgres import read_statements
from tlsy.rules_engine.adapters.postgres.engine_states import PostgresEngineStates
from tlsy.rules_engine.adapters.postgres.incidents import PostgresIncidents
from tlsy.rules_engine.adapters.postgres.observed_fields import PostgresObservedFields
from tlsy.rules_engine.adapters.postgres.rules import PostgresRules
from tlsy.rules_engine.adapters.reader_backlog import ReaderBacklog
from tlsy.rules_engine.domain.engine import EngineLimits
from tlsy.rules_engine.domain.incident import ReopenPolicy
from tlsy.rules_engine.domain.problems import RuleLimits
from tlsy.rules_engine.handlers.acknowledge_incident import AcknowledgeIncident
from tlsy.rules_engine.handlers.changes import RuleChanges
from tlsy.rules_engine.handlers.diff_rule_versions import DiffRuleVersions
from tlsy.rules_engine.handlers.disable_rule import DisableRule
from tlsy.rules_engine.handlers.effects import SERVICE, Effects
from tlsy.rules_engine.handlers.evaluation import Evaluation, EvaluationLimits
from tlsy.rules_engine.handlers.get_incident import GetIncident
from tlsy.rules_engine.handlers.get_rule import GetRule
from tlsy.rules_engine.handlers.halting import Halting
from tlsy.rules_engine.handlers.list_incidents import ListIncidents
from tlsy.rules_engine.handlers.list_observed_fields import ListObservedFields
from tlsy.rules_engine.handlers.list_rule_versions import ListRuleVersions
from tlsy.rules_engine.handlers.list_rules import ListRules
from tlsy.rules_engine.handlers.memory import Memories
from tlsy.rules_engine.handlers.metrics import RulesMetrics
from tlsy.rules_engine.handlers.on_events_accepted import OnEventsAccepted
from tlsy.rules_engine.handlers.on_rule_changed import OnRuleChanged
from tlsy.rules_engine.handlers.ownership import Ownership
from tlsy.rules_engine.handlers.publish_rule import PublishRule
from tlsy.rules_engine.handlers.resolve_incident import ResolveIncident
from tlsy.rules_engine.handlers.rollback_rule import RollbackRule
from tlsy.rules_engine.handlers.run_timers import RunTimers, TimerSettings
from tlsy.rules_engine.handlers.transitions import IncidentTransitions
from tlsy.rules_engine.handlers.validate_rule import ValidateRule
from tlsy.rules_engine.rpc.servicer import RulesEngineHandlers, RulesEngineServicer
from tlsy.runtime.service import Part, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from tlsy.contracts.cloudevents import CloudEvent
    from tlsy.rpc.assembly import Assembly
    from tlsy.rules_engine.settings import RulesEngineSettings
    from tlsy.runtime.host import Host
    from tlsy.runtime.service import Supervisor

_PACKAGE: Final = "rules_engine"


def build(settings: RulesEngineSettings, host: Host) -> Supervisor:
    """Wires the service; no I/O."""
    taken: dict[str, Callable[[CloudEvent], None]] = {}

    def on_own_event(event: CloudEvent) -> None:
        take = taken.get(event.type)
        if take is not None:
            take(event)

    assembly = assemble(host, _PACKAGE, tailed={TOPICS[SERVICE]: on_own_event})
    effects = Effects(assembly.audit, clock=host.clock, ids=host.ids)
    consumer, timers = _workers(assembly, effects, settings)
    taken.update(consumers.tailed(OnRuleChanged(timers)))
    served = Served(
        rules_engine_pb2.DESCRIPTOR.services_by_name["RulesEngineService"],
        rules_engine_pb2_grpc.add_RulesEngineServiceServicer_to_server,
        RulesEngineServicer(_handlers(assembly, effects, settings)),
    )

    def stopped() -> str | None:
        partitions = consumer.stopped_partitions()
        return f"{len(partitions)} partitions stopped by dead letters" if partitions else None

    return assembly.supervisor(
        [served],
        workers=[Part(consumer), Part(Task("rules-engine-timers", timers.run))],
        checks=[stopped],
    )


def _handlers(assembly: Assembly, effects: Effects, settings: RulesEngineSettings) -> RulesEngineHandlers:
    tenancy, limits, sql = assembly.tenancy, RuleLimits(), read_statements()
    rules, incidents, observed = PostgresRules(sql), PostgresIncidents(sql), PostgresObservedFields(sql)
    changes = RuleChanges(rules, effects, limits)
    transitions = IncidentTransitions(incidents, effects)
    return RulesEngineHandlers(
        validate_rule=ValidateRule(tenancy=tenancy, observed=observed, limits=limits),
        publish_rule=PublishRule(
            tenancy=tenancy,
            rules=rules,
            observed=observed,
            changes=changes,
            effects=effects,
            limits=limits,
            max_versions=settings.max_versions_per_rule,
        ),
        get_rule=GetRule(tenancy=tenancy, rules=rules),
        list_rules=ListRules(tenancy=tenancy, rules=rules),
        list_rule_versions=ListRuleVersions(tenancy=tenancy, rules=rules),
        diff_rule_versions=DiffRuleVersions(tenancy=tenancy, rules=rules, limits=limits),
        rollback_rule=RollbackRule(
            tenancy=tenancy, rules=rules, changes=changes, effects=effects, limits=limits
        ),
        disable_rule=DisableRule(tenancy=tenancy, changes=changes, effects=effects),
        get_incident=GetIncident(tenancy=tenancy, incidents=incidents),
        list_incidents=ListIncidents(tenancy=tenancy, incidents=incidents),
        acknowledge_incident=AcknowledgeIncident(tenancy=tenancy, transitions=transitions, effects=effects),
        resolve_incident=ResolveIncident(
            tenancy=tenancy, rules=rules, transitions=transitions, effects=effects
        ),
        list_observed_fields=ListObservedFields(tenancy=tenancy, observed=observed),
    )


def _workers(
    assembly: Assembly, effects: Effects, settings: RulesEngineSettings
) -> tuple[Consumer, RunTimers]:
    host, sql, group = assembly.host, read_statements(), consumers.GROUP
    memories, states = Memories(settings.max_tenants_in_memory), PostgresEngineStates(sql)
    metrics = RulesMetrics(host.telemetry.registry)
    evaluation = _evaluation(effects, settings, memories, metrics)

    async def partition_count() -> int:
        return len(await assembly.inspector.end_offsets(consumers.TOPIC))

    ownership = Ownership(
        memories=memories,
        partition_count=partition_count,
        partition_of=lambda tenant_id, count: partition_of(tenant_id.hex.encode(), count),
        tenants=lambda: iter(assembly.catalog),
    )
    backlog = ReaderBacklog(
        consumers.TOPIC,
        lambda: KafkaGroupReader(host.brokers, group, [consumers.TOPIC], host.service),
        Parking(_PACKAGE, group, assembly.tenancy),
    )
    consumer = Consumer(
        group,
        [consumers.TOPIC],
        package=_PACKAGE,
        reader=backlog.reader,
        routes=consumers.routes(OnEventsAccepted(evaluation=evaluation, catalog=assembly.catalog)),
        transactions=assembly.tenancy,
        dead_letters=DeadLetters(group, assembly.producer, assembly.inspector, host.clock),
        clock=host.clock,
        jitter=assembly.jitter,
        metrics=assembly.metrics,
        ownership=ownership,
        ready=assembly.catalog.wait_ready,
    )
    timers = RunTimers(
        tenancy=assembly.tenancy,
        catalog=assembly.catalog,
        evaluation=evaluation,
        states=states,
        memories=memories,
        ownership=ownership,
        fence=PartitionFence(_PACKAGE, group),
        backlog=backlog,
        clock=host.clock,
        settings=TimerSettings(tick_s=settings.tick_s, retry_s=settings.retry_s),
        metrics=metrics,
    )
    return consumer, timers


def _evaluation(
    effects: Effects, settings: RulesEngineSettings, memories: Memories, metrics: RulesMetrics
) -> Evaluation:
    sql, engine_limits, rule_limits = read_statements(), EngineLimits(), RuleLimits()
    states = PostgresEngineStates(sql)
    return Evaluation(
        memories=memories,
        states=states,
        incidents=PostgresIncidents(sql),
        observed=PostgresObservedFields(sql),
        effects=effects,
        halting=Halting(
            rules=PostgresRules(sql),
            states=states,
            incidents=PostgresIncidents(sql),
            effects=effects,
            limits=rule_limits,
            engine_limits=engine_limits,
            metrics=metrics,
        ),
        metrics=metrics,
        limits=EvaluationLimits(
            engine=engine_limits,
            rules=rule_limits,
            reopen=ReopenPolicy(settings.reopen_within_s),
            max_fields=settings.max_observed_fields,
        ),
    )
