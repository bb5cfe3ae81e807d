from __future__ import annotations

from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as pb
from tlsy.rpc.errors import Unauthenticated


async def test_those_beyond_the_newest_are_told_of_once(tlsy, stand_in):
    incident = pb.Incident(name="tenants/home/incidents/1", etag="1")
    page = pb.ListIncidentsResponse(incidents=[incident] * 1000, next_page_token="more")
    stand_in.answers["ListIncidents"] = [page, page, Unauthenticated("TOKEN_EXPIRED", "It is over.")]
    result = await tlsy("incidents", "watch", "--interval", "0.2", "-o", "json")
    assert result.code == 4
    told = "Only the 1000 newest are watched; choose with --state, --rule or --site."
    assert result.err.splitlines()[0] == told
    assert result.err.count("newest") == 1
    assert "--limit" not in result.err
