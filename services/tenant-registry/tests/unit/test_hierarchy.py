from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsy.tenancy.context import TenantState
from tlsy.tenant_registry.domain.entitlements import KINDS
from tlsy.tenant_registry.domain.errors import NotAllowedNowError
from tlsy.tenant_registry.domain.kinds import Tier
from tlsy.tenant_registry.domain.modules import REQUIRES
from tlsy.tenant_registry.domain.tenant import (
    PARENT_SUSPENDED,
    cascade,
    deleted,
    deleting,
    derive,
    failed,
    resumed,
    suspended,
)

from .drafts import NOW, tenant

OWN = st.fixed_dictionaries(
    {
        "tier": st.sampled_from(Tier),
        "modules": st.frozensets(st.sampled_from(sorted(REQUIRES))),
        "overrides": st.dictionaries(st.sampled_from(sorted(KINDS)), st.integers(0, 10**12)),
        "suspend_reason": st.sampled_from(["", "unpaid"]),
    }
)


def line() -> list:
    first = tenant(1)
    second = tenant(2, parent=first)
    return [first, second, tenant(3, parent=second), tenant(4, parent=first)]


@given(st.lists(st.tuples(st.integers(0, 3), OWN), max_size=8))
def test_whatever_changes_where_no_child_has_more_than_its_parent(steps):
    family = {each.tenant_id: each for each in line()}
    for index, own in steps:
        before = list(family.values())[index]
        parent = family.get(before.parent_id)
        changed = derive(replace(before, **own), parent, NOW)
        below = [each for each in family.values() if changed.tenant_id in each.ancestor_ids]
        for each in (changed, *cascade(changed, below, NOW)):
            family[each.tenant_id] = each
    for child in family.values():
        if (parent := family.get(child.parent_id)) is not None:
            assert child.active_modules <= parent.active_modules
            assert child.active_tier.rank <= parent.active_tier.rank
            assert all(child.entitlements[key] <= parent.entitlements[key] for key in KINDS)
            assert child.state is not TenantState.ACTIVE or parent.state is TenantState.ACTIVE
            assert child.residency <= parent.residency


@given(OWN)
def test_modules_in_effect_never_lack_what_they_require(own):
    changed = derive(replace(tenant(1), **own), None, NOW)
    assert all(REQUIRES[module] <= changed.active_modules for module in changed.active_modules)


def test_deriving_twice_changes_nothing():
    once = derive(replace(tenant(1), tier=Tier.BUSINESS), None, NOW)
    assert derive(once, None, NOW) is once


def test_a_suspended_parent_suspends_its_line_and_each_epoch_grows():
    first, second, third, fourth = line()
    parent = suspended(first, None, "unpaid", NOW)
    altered = cascade(parent, [third, second, fourth], NOW)
    assert {each.slug for each in altered} == {"acme-2", "acme-3", "acme-4"}
    assert {(each.state, each.state_reason, each.epoch) for each in altered} == {
        (TenantState.SUSPENDED, PARENT_SUSPENDED, 2)
    }


def test_a_child_that_was_suspended_itself_stays_so_when_its_parent_resumes():
    first, second, *_ = line()
    parent = suspended(first, None, "unpaid", NOW)
    child = suspended(cascade(parent, [second], NOW)[0], parent, "misuse", NOW)
    assert cascade(resumed(parent, None, NOW), [child], NOW) == ()
    assert (child.state_reason, child.epoch) == ("misuse", 2)


def test_a_second_suspension_changes_the_reason_and_not_the_epoch():
    twice = suspended(suspended(tenant(1), None, "unpaid", NOW), None, "misuse", NOW)
    assert (twice.suspend_reason, twice.epoch) == ("misuse", 2)


@pytest.mark.parametrize("act", [lambda t: resumed(t, None, NOW), lambda t: deleted(t, NOW)])
def test_an_active_tenant_is_neither_resumed_nor_deleted_without_deletion(act):
    with pytest.raises(NotAllowedNowError):
        act(tenant(1))


def test_deleting_closes_the_fence_also_of_a_suspended_tenant():
    assert deleting(tenant(1), NOW, NOW).epoch == 2
    assert deleting(suspended(tenant(1), None, "unpaid", NOW), NOW, NOW).epoch == 3


def test_an_active_tenant_does_not_fail():
    with pytest.raises(NotAllowedNowError) as refused:
        failed(tenant(1), "X", NOW)
    assert refused.value.reason == "TENANT_STATE"
