"""The RPCs of ingestion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from tlsy.contracts.ingestion.v1 import ingestion_pb2 as pb
from tlsy.contracts.ingestion.v1 import ingestion_pb2_grpc
from tlsy.ingestion.rpc import mapping
from tlsy.rpc.call import current_call
from tlsy.rpc.paging import Pages, fitting, page_size
from tlsy.rpc.resource_names import check_parent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tlsy.contracts.ingestion.v1.encoded_pb2 import EncodedRequest
    from tlsy.ingestion.handlers.get_ingest_usage import GetIngestUsage
    from tlsy.ingestion.handlers.ingest_events import IngestEvents
    from tlsy.ingestion.handlers.list_ingest_outcomes import ListIngestOutcomes
    from tlsy.ingestion.handlers.query_events import QueryEvents
    from tlsy.ingestion.handlers.tail_events import TailEvents

    Context = grpc.aio.ServicerContext[object, object]


class IngestionServicer(ingestion_pb2_grpc.IngestionServiceServicer):
    """Translates calls; the interceptor has bound the tenant and checked everything declared in the proto."""

    def __init__(
        self,
        *,
        ingest: IngestEvents,
        query: QueryEvents,
        tail: TailEvents,
        outcomes: ListIngestOutcomes,
        usage: GetIngestUsage,
    ) -> None:
        self._ingest = ingest
        self._query = query
        self._tail = tail
        self._outcomes = outcomes
        self._usage = usage

    async def IngestEvents(  # type: ignore[override]  # see add_to_server
        self, request: EncodedRequest, context: Context
    ) -> pb.IngestEventsResponse:
        """See the proto."""
        check_parent(request.parent)
        tenant, principal = current_call().required_tenant(), str(current_call().principal)
        ingested = await self._ingest.run(tenant, principal, request.events, request.ByteSize())
        return mapping.to_response(ingested)

    async def QueryEvents(self, request: pb.QueryEventsRequest, context: Context) -> pb.QueryEventsResponse:
        """See the proto."""
        check_parent(request.parent)
        call, pages = current_call(), Pages(current_call(), request)
        after = pages.place(request.page_token, (int, str), mapping.event_place)
        tenant_id = call.required_tenant().tenant_id
        wanted, limit = mapping.to_filter(request), page_size(request.page_size)
        rows, more = await self._query.run(tenant_id, wanted, after, limit)
        events, more = fitting(map(mapping.to_event, rows), more=more)
        token = pages.token(mapping.event_cursor(rows[len(events) - 1]) if more else None)
        return pb.QueryEventsResponse(events=events, next_page_token=token)

    async def TailEvents(
        self, request: pb.TailEventsRequest, context: Context
    ) -> AsyncIterator[pb.TailEventsResponse]:
        """See the proto."""
        check_parent(request.parent)
        tenant_id = current_call().required_tenant().tenant_id
        async with self._tail.open(tenant_id, mapping.tail_filter(request)) as tail:
            # The first message, without events, tells the reader that everything from now on will come.
            yield pb.TailEventsResponse()
            while True:
                events, missed = await tail.next()
                yield pb.TailEventsResponse(events=events, missed=missed)

    async def ListIngestOutcomes(
        self, request: pb.ListIngestOutcomesRequest, context: Context
    ) -> pb.ListIngestOutcomesResponse:
        """See the proto."""
        check_parent(request.parent)
        call, pages = current_call(), Pages(current_call(), request)
        after = pages.place(request.page_token, (int, str), mapping.outcome_place)
        tenant_id, limit = call.required_tenant().tenant_id, page_size(request.page_size)
        found, more = await self._outcomes.run(tenant_id, after, limit)
        outcomes, more = fitting(map(mapping.to_outcome, found), more=more)
        token = pages.token(mapping.outcome_cursor(found[len(outcomes) - 1]) if more else None)
        return pb.ListIngestOutcomesResponse(outcomes=outcomes, next_page_token=token)

    async def GetIngestUsage(self, request: pb.GetIngestUsageRequest, context: Context) -> pb.IngestUsage:
        """See the proto."""
        check_parent(request.parent)
        return mapping.to_usage(*await self._usage.run(current_call().required_tenant()))


def add_to_server(servicer: IngestionServicer, server: Any) -> None:
    """As the generated one, but IngestEvents gets its events as they are encoded: the domain reads them."""
    handler: Any = grpc.unary_unary_rpc_method_handler(
        servicer.IngestEvents,
        request_deserializer=mapping.read_request,
        response_serializer=pb.IngestEventsResponse.SerializeToString,
    )
    ingestion_pb2_grpc.add_IngestionServiceServicer_to_server(servicer, server)
    # Of a method that is registered again the last handler answers.
    name = pb.DESCRIPTOR.services_by_name["IngestionService"].full_name
    server.add_registered_method_handlers(name, {"IngestEvents": handler})
