from __future__ import annotations

import pytest

from tlsy.identity.domain.passwords import password_problems, prepare


def reasons(password: str, email: str = "someone.else@example.org") -> set[str]:
    return {problem.reason for problem in password_problems("password", password, email)}


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short", "PASSWORD_TOO_SHORT"),
        ("x" * 1025, "PASSWORD_TOO_LONG"),
        ("Password1234", "PASSWORD_COMMON"),
        ("aaaaaaaaaaaaaaaa", "PASSWORD_COMMON"),
        ("nul in \0 the middle", "PASSWORD_HAS_NUL"),
        ("Someone.Else@example.org", "PASSWORD_IS_EMAIL"),
        ("SOMEONE.ELSE", "PASSWORD_IS_EMAIL"),
    ],
)
def test_a_weak_password_is_refused_with_its_reason(password: str, reason: str) -> None:
    assert reason in reasons(password)


def test_a_long_sentence_is_a_password_without_rules_on_its_characters() -> None:
    assert reasons("le chat dort sur le toit") == set()


def test_every_problem_is_reported_at_once() -> None:
    assert reasons("\0aaa") == {"PASSWORD_TOO_SHORT", "PASSWORD_COMMON", "PASSWORD_HAS_NUL"}


def test_two_ways_to_type_an_accent_are_one_password() -> None:
    assert prepare("de\u0301ja\u0300 vu encore") == prepare("d\u00e9j\u00e0 vu encore")
