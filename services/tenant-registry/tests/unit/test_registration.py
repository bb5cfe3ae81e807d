from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from tlsy.runtime.ids import TenantId
from tlsy.tenancy.context import IsolationMode, TenantState
from tlsy.tenant_registry.domain.errors import NotAllowedNowError
from tlsy.tenant_registry.domain.kinds import ClusterKind, SectorProfile, Tier
from tlsy.tenant_registry.domain.registration import draft_violations, register
from tlsy.tenant_registry.domain.tenant import suspended

from .drafts import BE, FR, NOW, PARIS, around, draft, tenant

ID = TenantId(UUID(int=7))


def reasons(asked, surroundings):
    return {found.reason for found in draft_violations(asked, surroundings)}


def made(asked, surroundings):
    return register(asked, surroundings, tenant_id=ID, now=NOW, shared_database="tlsy_tenants")


def test_a_sound_draft_has_no_violation():
    assert reasons(draft(), around()) == set()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"display_name": "  "}, "DISPLAY_NAME_EMPTY"),
        ({"display_name": "x" * 201}, "DISPLAY_NAME_TOO_LONG"),
        ({"display_name": "a\x00b"}, "DISPLAY_NAME_CHARACTERS"),
        ({"country": "zz"}, "COUNTRY_INVALID"),
        ({"locale": "french"}, "LOCALE_INVALID"),
        ({"locale": "fr-ZZ"}, "LOCALE_INVALID"),
        ({"time_zone": "Mars/Olympus"}, "TIME_ZONE_UNKNOWN"),
        ({"currency_code": "EURO"}, "CURRENCY_UNKNOWN"),
        ({"modules": frozenset({"telepathy"})}, "MODULE_UNKNOWN"),
        ({"modules": frozenset({"reporting"})}, "MODULE_REQUIRES"),
        ({"overrides": {"wishes": 3}}, "ENTITLEMENT_UNKNOWN"),
        ({"overrides": {"rules": -1}}, "ENTITLEMENT_OUT_OF_RANGE"),
        ({"parent_slug": "acme"}, "PARENT_CYCLE"),
        ({"parent_slug": "nobody"}, "PARENT_UNKNOWN"),
        ({"cluster_id": "mars"}, "CLUSTER_UNKNOWN"),
        ({"host_names": ("a b",), "tier": Tier.BUSINESS}, "HOST_NAME_INVALID"),
        ({"host_names": ("evil.tlsy.example",), "tier": Tier.BUSINESS}, "HOST_NAME_RESERVED"),
        ({"host_names": ("acme.example",), "tier": Tier.STARTER}, "HOST_NAMES_NOT_ENTITLED"),
    ],
)
def test_each_fault_of_a_draft_has_its_reason(changes, reason):
    assert reason in reasons(draft(**changes), around())


def test_all_faults_are_reported_at_once():
    spoiled = draft(slug="-", display_name="", country="zz", currency_code="E", overrides={"x": 1})
    assert len(reasons(spoiled, around())) >= 5


def test_a_country_that_is_not_in_the_catalogue_is_refused():
    assert "COUNTRY_UNKNOWN" in reasons(draft(), around(country=None))


def test_a_cluster_abroad_is_refused():
    abroad = replace(PARIS, cluster_id="boston", country="us")
    assert "CLUSTER_OUT_OF_COUNTRY" in reasons(draft(cluster_id="boston"), around(clusters=(abroad,)))


def test_a_dedicated_cluster_takes_no_shared_tenant():
    bank = replace(PARIS, kind=ClusterKind.DEDICATED)
    assert "CLUSTER_KIND_MISMATCH" in reasons(draft(cluster_id="paris"), around(clusters=(bank,)))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"cordoned": True}, "CLUSTER_CORDONED"),
        ({"max_tenants": 3, "tenant_count": 3}, "CLUSTER_FULL"),
        ({"reachable": False}, "CLUSTER_UNREACHABLE"),
        ({"country": "us"}, "NO_CLUSTER_IN_COUNTRY"),
        ({"kind": ClusterKind.DEDICATED}, "NO_CLUSTER_FOR_MODE"),
    ],
)
def test_a_cluster_that_cannot_take_the_tenant_now_is_named_by_reason(state, reason):
    with pytest.raises(NotAllowedNowError) as refused:
        made(draft(), around(clusters=(replace(PARIS, **state),)))
    assert refused.value.reason == reason
    assert refused.value.retryable == (reason == "CLUSTER_UNREACHABLE")


def test_the_home_country_is_chosen_before_an_emptier_cluster_abroad():
    brussels = replace(PARIS, cluster_id="brussels", country="be")
    crowded = replace(PARIS, tenant_count=900)
    assert made(draft(), around(clusters=(brussels, crowded))).cluster_id == "paris"


def test_a_dedicated_tenant_prefers_a_cluster_of_its_kind():
    bank = replace(PARIS, cluster_id="bank", kind=ClusterKind.DEDICATED, tenant_count=50)
    asked = draft(isolation_mode=IsolationMode.DEDICATED)
    assert made(asked, around(clusters=(PARIS, bank))).cluster_id == "bank"


@pytest.mark.parametrize(
    ("profile", "mode", "database", "schema"),
    [
        (SectorProfile.SME, IsolationMode.SHARED, "tlsy_tenants", "shared"),
        (SectorProfile.MULTISITE, IsolationMode.SCHEMA, "tlsy_tenants", f"t_{ID.hex}"),
        (SectorProfile.GOVERNMENT, IsolationMode.DEDICATED, f"t_{ID.hex}", "tenant"),
    ],
)
def test_the_profile_sets_the_isolation_mode_and_so_the_placement(profile, mode, database, schema):
    at = made(draft(sector_profile=profile), around())
    assert (at.isolation_mode, at.database, at.schema) == (mode, database, schema)


def test_a_ministry_stays_in_its_own_country_where_the_policy_allows_others():
    brussels = replace(PARIS, cluster_id="brussels", country="be")
    with pytest.raises(NotAllowedNowError, match="no cluster in: fr"):
        made(draft(sector_profile=SectorProfile.GOVERNMENT), around(clusters=(brussels,)))


def test_a_child_abroad_is_held_where_both_policies_allow():
    brussels = replace(PARIS, cluster_id="brussels", country="be")
    child = draft(slug="acme-be", parent_slug="acme-1", country="be")
    placed = made(child, around(country=BE, parent=tenant(1), clusters=(PARIS, brussels)))
    assert (placed.cluster_id, placed.residency) == ("brussels", frozenset({"be"}))


def test_a_child_whose_country_shares_no_cluster_country_with_its_parent_is_refused():
    us = replace(FR, code="us", allowed_cluster_countries=frozenset({"us"}))
    asked = draft(slug="acme-us", parent_slug="acme-1", country="us")
    assert "RESIDENCY_CONFLICT" in reasons(asked, around(country=us, parent=tenant(1)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modules": frozenset({"supervision", "enterprise-sso"})}, "MODULE_EXCEEDS_PARENT"),
        ({"overrides": {"rules": 51}}, "ENTITLEMENT_EXCEEDS_PARENT"),
        ({"tier": Tier.BUSINESS}, "TIER_EXCEEDS_PARENT"),
    ],
)
def test_a_child_with_more_than_its_parent_is_refused(changes, reason):
    asked = draft(slug="acme-2", parent_slug="acme-1", **changes)
    assert reason in reasons(asked, around(parent=tenant(1)))


def test_a_child_is_not_above_what_its_parent_s_tier_is_in_effect():
    parent = replace(tenant(1, tier=Tier.ENTERPRISE), active_tier=Tier.STARTER)
    asked = draft(slug="acme-2", parent_slug="acme-1", tier=Tier.BUSINESS)
    assert "TIER_EXCEEDS_PARENT" in reasons(asked, around(parent=parent))


def test_choices_left_open_below_a_parent_never_exceed_it():
    asked = draft(slug="acme-2", parent_slug="acme-1", sector_profile=SectorProfile.GOVERNMENT)
    assert reasons(asked, around(parent=tenant(1))) == set()


def test_the_hierarchy_has_four_levels():
    deepest = tenant(1)
    for number in range(2, 5):
        deepest = tenant(number, parent=deepest)
    asked = draft(slug="acme-5", parent_slug="acme-4")
    assert "HIERARCHY_TOO_DEEP" in reasons(asked, around(parent=deepest))


def test_nothing_is_created_below_a_suspended_parent():
    parent = suspended(tenant(1), None, "unpaid", NOW)
    assert parent.state is TenantState.SUSPENDED
    with pytest.raises(NotAllowedNowError) as refused:
        made(draft(slug="acme-2", parent_slug="acme-1"), around(parent=parent))
    assert refused.value.reason == "PARENT_NOT_ACTIVE"


def test_a_parent_has_at_most_as_many_sub_tenants_as_entitled():
    with pytest.raises(NotAllowedNowError) as refused:
        made(draft(slug="acme-9", parent_slug="acme-1"), around(parent=tenant(1), below=2))
    assert refused.value.reason == "SUB_TENANT_LIMIT"


@pytest.mark.parametrize("by_platform", [True, False])
def test_who_asks_below_a_full_ancestor_is_told_of_it_and_its_name_only_if_it_may_see_it(by_platform):
    top = tenant(1)
    middle = tenant(2, parent=top)
    line = (top, middle, tenant(3, parent=middle))
    there = replace(around(line=line, by_platform=by_platform), below=(2, 1, 0))
    with pytest.raises(NotAllowedNowError) as refused:
        made(draft(slug="acme-9", parent_slug="acme-3"), there)
    assert (refused.value.reason, top.slug in str(refused.value)) == ("SUB_TENANT_LIMIT", by_platform)
