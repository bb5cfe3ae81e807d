from __future__ import annotations

import pytest

from tlsy.tenant_registry.domain.changes import (
    Changes,
    change_violations,
    entitlement_violations,
    excesses,
    forbidden_changes,
    updated,
    with_entitlement,
    with_module,
)
from tlsy.tenant_registry.domain.errors import NotAllowedNowError
from tlsy.tenant_registry.domain.kinds import ProviderAccess, Tier
from tlsy.tenant_registry.domain.tenant import deleting

from .drafts import NOW, tenant

ZONES = frozenset({"Etc/UTC"})


def test_every_fault_of_an_update_is_reported_at_once():
    spoiled = Changes(display_name="", locale="x", time_zone="y", currency_code="z", host_names=("q",))
    assert len(change_violations(spoiled, time_zones=ZONES, base_domain="tlsy.example")) >= 5


def test_a_child_is_not_raised_above_its_parents_tier():
    parent = tenant(1)
    beyond = excesses(tenant(9, parent=parent), Changes(tier=Tier.ENTERPRISE), parent, by_platform=True)
    assert [found.reason for found in beyond] == ["TIER_EXCEEDS_PARENT"]


def test_a_tenant_does_not_change_its_own_tier():
    assert (
        forbidden_changes(tenant(1), Changes(tier=Tier.ENTERPRISE), by_platform=False)
        == "TIER_SET_BY_PROVIDER"
    )
    assert forbidden_changes(tenant(1), Changes(tier=Tier.ENTERPRISE), by_platform=True) is None


def test_the_provider_does_not_widen_its_own_access():
    wide = Changes(provider_access=ProviderAccess.FULL)
    assert forbidden_changes(tenant(1), wide, by_platform=True) == "PROVIDER_ACCESS_GRANTED_BY_TENANT"
    assert forbidden_changes(tenant(1), wide, by_platform=False) is None
    assert (
        forbidden_changes(tenant(1), Changes(provider_access=ProviderAccess.NONE), by_platform=True) is None
    )


def test_a_higher_tier_raises_what_is_not_overridden():
    held = with_entitlement(tenant(1), "rules", 7, None, NOW)
    raised = updated(held, Changes(tier=Tier.BUSINESS), None, NOW)
    assert (raised.entitlements["rules"], raised.entitlements["users"]) == (7, 250)


def test_an_override_taken_back_is_the_default_again():
    held = with_entitlement(tenant(1), "rules", 7, None, NOW)
    assert with_entitlement(held, "rules", None, None, NOW).entitlements["rules"] == 50


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("wishes", 1, "ENTITLEMENT_UNKNOWN"),
        ("kafka_producers", 2, "ENTITLEMENT_OUT_OF_RANGE"),
        ("rules", 51, "ENTITLEMENT_EXCEEDS_PARENT"),
    ],
)
def test_an_unsound_entitlement_is_refused(key, value, reason):
    assert [found.reason for found in entitlement_violations(key, value, tenant(1))] == [reason]


@pytest.mark.parametrize(
    ("module", "enabled", "reason"),
    [
        ("supervision", False, "MODULE_REQUIRED"),
        ("reporting", True, "MODULE_EXCEEDS_PARENT"),
    ],
)
def test_a_module_switch_that_would_break_a_rule_is_refused(module, enabled, reason):
    parent = tenant(1)
    with pytest.raises(NotAllowedNowError) as refused:
        with_module(tenant(2, parent=parent), module, parent, enabled=enabled, now=NOW)
    assert refused.value.reason == reason


def test_a_module_is_switched_on_only_with_what_it_requires():
    with pytest.raises(NotAllowedNowError) as refused:
        with_module(tenant(1, modules=frozenset({"billing"})), "reporting", None, enabled=True, now=NOW)
    assert refused.value.reason == "MODULE_REQUIRES"


def test_a_tenant_being_deleted_is_not_changed():
    with pytest.raises(NotAllowedNowError):
        updated(deleting(tenant(1), NOW, NOW), Changes(locale="fr"), None, NOW)
