from __future__ import annotations

from typing import Any, cast

import pytest

from libs.rpc.tests.world import ACME, OTHER, entry
from tlsy.rpc.assembly import ClusterDsns, _KnownDatabases
from tlsy.tenancy.cluster import RELAY
from tlsy.tenancy.context import IsolationMode, Placement
from tlsy.tenancy.database import Databases, PoolLimits
from tlsy.testkit.clock import FakeClock

CONTROL = Placement("eu-1", "tlsy_control", "")
ALONE = entry(OTHER, "other", mode=IsolationMode.DEDICATED, placement=Placement("eu-1", "t_other", "tenant"))


@pytest.mark.parametrize(("query", "notifying"), [("", ["tlsy_control", "tlsy_tenants"]), ("?pooled=1", [])])
def test_through_a_pooler_no_database_notifies(query, notifying):
    dsns = ClusterDsns({"eu-1": f"postgresql://:secret@db:6432{query}"}, RELAY)
    databases = Databases(dsns, PoolLimits(), FakeClock())
    known = _KnownDatabases(cast("Any", [entry(ACME, "acme"), ALONE]), CONTROL, databases.pooled).databases()
    assert [each.placement.database for each in known if each.notifies] == notifying
    assert len(known) == 3


def test_a_cluster_that_is_not_known_yet_is_asked_again():
    dsns: dict[str, str] = {"bad": "postgresql://:secret@db:0x1"}
    databases = Databases(ClusterDsns(dsns, RELAY), PoolLimits(), FakeClock())
    assert not databases.pooled("eu-1")
    assert not databases.pooled("bad")
    dsns["eu-1"] = "postgresql://:secret@db:6432?pooled=1"
    assert databases.pooled("eu-1")
