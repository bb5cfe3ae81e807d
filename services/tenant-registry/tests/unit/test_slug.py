from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlsy.tenant_registry.domain.slug import skeleton, slug_violations

DIGITS = st.text("0123456789", min_size=1, max_size=8)


def reasons(slug: str) -> set[str]:
    return {found.reason for found in slug_violations(slug, "tenant_slug")}


@pytest.mark.parametrize("slug", ["abc", "acme", "acme-fr", "a1b", "shop-0042", "a" * 40])
def test_sound_slugs_have_no_violation(slug):
    assert reasons(slug) == set()


@pytest.mark.parametrize(
    ("slug", "reason"),
    [
        ("ab", "SLUG_TOO_SHORT"),
        ("a" * 41, "SLUG_TOO_LONG"),
        ("Acme", "SLUG_CHARACTERS"),
        ("acmé", "SLUG_CHARACTERS"),
        ("аcme", "SLUG_CHARACTERS"),  # noqa: RUF001 - the first letter is Cyrillic
        ("ac_me", "SLUG_CHARACTERS"),
        ("ac\x00me", "SLUG_CHARACTERS"),
        ("1acme", "SLUG_START"),
        ("-acme", "SLUG_START"),
        ("acme-", "SLUG_HYPHENS"),
        ("xn--acme", "SLUG_HYPHENS"),
        ("platform", "SLUG_RESERVED"),
        ("admin", "SLUG_RESERVED"),
        ("p1atform", "SLUG_RESERVED"),
    ],
)
def test_each_fault_of_a_slug_has_its_reason(slug, reason):
    assert reason in reasons(slug)


def test_all_faults_are_reported_at_once():
    assert reasons("9" + "a" * 40 + "-") == {"SLUG_TOO_LONG", "SLUG_START", "SLUG_HYPHENS"}


@pytest.mark.parametrize(
    ("left", "right"),
    [("paypal", "paypa1"), ("modern", "modem"), ("vvest", "west"), ("o0o", "ooo"), ("cloud", "doud")],
)
def test_look_alikes_share_a_skeleton(left, right):
    assert skeleton(left) == skeleton(right)


@given(DIGITS, DIGITS)
def test_numbered_slugs_are_no_look_alikes_of_each_other(left, right):
    assert (skeleton(f"shop-{left}") == skeleton(f"shop-{right}")) == (left == right)


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", max_size=45))
def test_a_skeleton_is_its_own_skeleton_letter_for_letter(slug):
    once = skeleton(slug)
    assert not set(once) & set("01234578i")
