from __future__ import annotations

import unicodedata

import pytest

from tlsy.identity.domain.emails import normalise


@pytest.mark.parametrize(
    "spelling",
    ["Ada@Example.ORG", " ada@example.org\r\n", "\u3000" * 248 + "ada@example.org", "ADA@EXAMPLE.ORG"],
)
def test_spellings_of_one_address_have_one_form(spelling: str) -> None:
    assert normalise(spelling) == "ada@example.org"


@pytest.mark.parametrize("local", ["καΐκι", "μαΰνα", "ångström", "straße"])
def test_so_have_capitals_and_decomposed_letters(local: str) -> None:
    address = f"{local}@example.org"
    forms = {
        unicodedata.normalize(form, text) for form in ("NFC", "NFD") for text in (address, address.upper())
    }
    assert len({normalise(text) for text in forms}) == 1


@pytest.mark.parametrize(
    ("domain", "form"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BU\u0308CHER\u3002EXAMPLE", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("STRAẞE.example", "xn--strae-oqa.example"),
        ("XN--STRAE-OQA.example", "xn--strae-oqa.example"),
        ("strasse.example", "strasse.example"),
    ],
)
def test_an_international_domain_has_the_ascii_form_that_mail_goes_to(domain: str, form: str) -> None:
    assert normalise(f"ada@{domain}") == f"ada@{form}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@localhost",
        "a b@example.org",
        "ada@-x.org",
        ".a@example.org",
        "a..b@example.org",
        "a\0b@example.org",
        "ada@exa mple.org",
        f"{'a' * 250}@example.org",
        "a@b@c",
        "ada@x..org",
        "ada@x.org.",
        "ada@xn--a.example",
        "ada@ex\u200bample.org",
        "å" * 64 + "@" + ("å" * 50 + ".") * 2 + "example.org",
    ],
)
def test_what_is_not_an_address_has_no_form(text: str) -> None:
    assert normalise(text) is None
