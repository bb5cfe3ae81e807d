from __future__ import annotations

import pytest

from tlsy.tenant_registry.domain.hosts import ascii_host, host_violations, slug_of


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Acme.Example.COM", "acme.example.com"),
        ("acme.example.com.", "acme.example.com"),
        ("acme.example.com:8443", "acme.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ａcme.example", "acme.example"),  # noqa: RUF001 - a full-width letter, as some keyboards give
        ("acme。example。", "acme.example"),
    ],
)
def test_spellings_of_one_host_have_one_form(text, host):
    assert ascii_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme",
        "a b.example",
        "10.0.0.1",
        "[::1]",
        "-a.example",
        "a..b",
        "xn--a.example",
        "x:y.z",
        "a\x00.b",
        "acme。",
    ],
)
def test_what_is_no_host_name_is_none(text):
    assert ascii_host(text) is None


def test_only_one_label_below_the_base_domain_is_a_slug():
    assert slug_of("acme.tlsy.example", "tlsy.example") == "acme"
    assert slug_of("a.acme.tlsy.example", "tlsy.example") is None
    assert slug_of("acme.eviltlsy.example", "tlsy.example") is None


def test_no_spelling_of_a_name_below_the_base_domain_is_a_tenant_s_own():
    names = ["shop.tlsy.example", "shop.tlsy.example.", "shop。tlsy。example。"]
    found = host_violations(names, "tlsy.example", "names")
    assert [(each.field, each.reason) for each in found if each.reason != "HOST_NAME_REPEATED"] == [
        (f"names[{index}]", "HOST_NAME_RESERVED") for index in range(3)
    ]
