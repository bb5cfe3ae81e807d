"""RulesEngineService: one method, one handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2_grpc
from tlsy.rpc.call import current_call
from tlsy.rpc.paging import Pages, fitting, page_size
from tlsy.rpc.resource_names import check_parent
from tlsy.rules_engine.handlers.messages import to_incident, to_rule, to_version
from tlsy.rules_engine.rpc import mapping, names

if TYPE_CHECKING:
    import grpc.aio

    from tlsy.rules_engine.handlers.acknowledge_incident import AcknowledgeIncident
    from tlsy.rules_engine.handlers.diff_rule_versions import DiffRuleVersions
    from tlsy.rules_engine.handlers.disable_rule import DisableRule
    from tlsy.rules_engine.handlers.get_incident import GetIncident
    from tlsy.rules_engine.handlers.get_rule import GetRule
    from tlsy.rules_engine.handlers.list_incidents import ListIncidents
    from tlsy.rules_engine.handlers.list_observed_fields import ListObservedFields
    from tlsy.rules_engine.handlers.list_rule_versions import ListRuleVersions
    from tlsy.rules_engine.handlers.list_rules import ListRules
    from tlsy.rules_engine.handlers.publish_rule import PublishRule
    from tlsy.rules_engine.handlers.resolve_incident import ResolveIncident
    from tlsy.rules_engine.handlers.rollback_rule import RollbackRule
    from tlsy.rules_engine.handlers.validate_rule import ValidateRule

    Context = grpc.aio.ServicerContext[Any, Any]

_BY_ID: Final = (str,)
_BY_TIME_AND_ID: Final = (int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesEngineHandlers:
    """A handler per method."""

    validate_rule: ValidateRule
    publish_rule: PublishRule
    get_rule: GetRule
    list_rules: ListRules
    list_rule_versions: ListRuleVersions
    diff_rule_versions: DiffRuleVersions
    rollback_rule: RollbackRule
    disable_rule: DisableRule
    get_incident: GetIncident
    list_incidents: ListIncidents
    acknowledge_incident: AcknowledgeIncident
    resolve_incident: ResolveIncident
    list_observed_fields: ListObservedFields


class RulesEngineServicer(rules_engine_pb2_grpc.RulesEngineServiceServicer):
    """Behind the interceptor: the call is authenticated, in its tenant, permitted and well-formed."""

    def __init__(self, handlers: RulesEngineHandlers) -> None:
        self._do = handlers

    async def ValidateRule(
        self, request: pb.ValidateRuleRequest, context: Context
    ) -> pb.ValidateRuleResponse:
        """See the proto."""
        check_parent(request.parent)
        return mapping.to_judged(await self._do.validate_rule.run(current_call(), request.document))

    async def PublishRule(self, request: pb.PublishRuleRequest, context: Context) -> pb.Rule:
        """See the proto."""
        rule_id = names.rule_id(request.name)
        return await self._do.publish_rule.run(current_call(), rule_id, request.document, request.etag)

    async def GetRule(self, request: pb.GetRuleRequest, context: Context) -> pb.Rule:
        """See the proto."""
        tenant = current_call().required_tenant()
        rule = await self._do.get_rule.run(current_call(), names.rule_id(request.name))
        return to_rule(rule, tenant.slug, tenant.tenant_id)

    async def ListRules(self, request: pb.ListRulesRequest, context: Context) -> pb.ListRulesResponse:
        """See the proto."""
        check_parent(request.parent)
        tenant, pages = current_call().required_tenant(), Pages(current_call(), request)
        after = pages.place(request.page_token, _BY_ID, str) or ""
        found, more = await self._do.list_rules.run(current_call(), after, page_size(request.page_size))
        rules, more = fitting((to_rule(rule, tenant.slug, tenant.tenant_id) for rule in found), more=more)
        token = pages.token((found[len(rules) - 1].rule_id,) if more else None)
        return pb.ListRulesResponse(rules=rules, next_page_token=token)

    async def ListRuleVersions(
        self, request: pb.ListRuleVersionsRequest, context: Context
    ) -> pb.ListRuleVersionsResponse:
        """See the proto."""
        rule_id, pages = names.rule_id(request.parent, "parent"), Pages(current_call(), request)
        after = pages.place(request.page_token, _BY_TIME_AND_ID, mapping.version_place)
        size = page_size(request.page_size)
        found, live, more = await self._do.list_rule_versions.run(current_call(), rule_id, after, size)
        told = (to_version(one, _slug(), live=one.version_id == live) for one in found)
        versions, more = fitting(told, more=more)
        token = pages.token(mapping.version_cursor(found[len(versions) - 1]) if more else None)
        return pb.ListRuleVersionsResponse(rule_versions=versions, next_page_token=token)

    async def DiffRuleVersions(
        self, request: pb.DiffRuleVersionsRequest, context: Context
    ) -> pb.DiffRuleVersionsResponse:
        """See the proto."""
        old = names.version(request.old_version, "old_version")
        new = names.version(request.new_version, "new_version")
        changes = await self._do.diff_rule_versions.run(current_call(), old, new)
        return pb.DiffRuleVersionsResponse(changes=map(mapping.to_change, changes))

    async def RollbackRule(self, request: pb.RollbackRuleRequest, context: Context) -> pb.Rule:
        """See the proto."""
        rule_id = names.rule_id(request.name)
        return await self._do.rollback_rule.run(current_call(), rule_id, request.version_id, request.etag)

    async def DisableRule(self, request: pb.DisableRuleRequest, context: Context) -> pb.Rule:
        """See the proto."""
        return await self._do.disable_rule.run(current_call(), names.rule_id(request.name), request.etag)

    async def GetIncident(self, request: pb.GetIncidentRequest, context: Context) -> pb.Incident:
        """See the proto."""
        stored = await self._do.get_incident.run(current_call(), names.incident_id(request.name))
        return to_incident(stored, _slug(), timeline=True)

    async def ListIncidents(
        self, request: pb.ListIncidentsRequest, context: Context
    ) -> pb.ListIncidentsResponse:
        """See the proto."""
        check_parent(request.parent)
        wanted, pages = mapping.to_filter(request), Pages(current_call(), request)
        before = pages.place(request.page_token, _BY_ID, UUID) or names.LAST
        size = page_size(request.page_size)
        found, more = await self._do.list_incidents.run(current_call(), wanted, before, size)
        incidents, more = fitting((to_incident(stored, _slug()) for stored in found), more=more)
        token = pages.token((found[len(incidents) - 1].incident.id,) if more else None)
        return pb.ListIncidentsResponse(incidents=incidents, next_page_token=token)

    async def AcknowledgeIncident(
        self, request: pb.AcknowledgeIncidentRequest, context: Context
    ) -> pb.Incident:
        """See the proto."""
        incident_id = names.incident_id(request.name)
        note = mapping.without_nul(request.note, "note", "NOTE_INVALID")
        return await self._do.acknowledge_incident.run(current_call(), incident_id, note, request.etag)

    async def ResolveIncident(self, request: pb.ResolveIncidentRequest, context: Context) -> pb.Incident:
        """See the proto."""
        incident_id = names.incident_id(request.name)
        note = mapping.without_nul(request.note, "note", "NOTE_INVALID")
        return await self._do.resolve_incident.run(current_call(), incident_id, note, request.etag)

    async def ListObservedFields(
        self, request: pb.ListObservedFieldsRequest, context: Context
    ) -> pb.ListObservedFieldsResponse:
        """See the proto."""
        check_parent(request.parent)
        event_type = mapping.without_nul(request.event_type, "event_type")
        fields = await self._do.list_observed_fields.run(current_call(), event_type)
        return pb.ListObservedFieldsResponse(fields=map(mapping.to_field, fields))


def _slug() -> str:
    return current_call().required_tenant().slug
