"""How strong a password must be."""

from __future__ import annotations

import unicodedata
from typing import Final

from tlsy.identity.domain.ids import Problem

MIN_LENGTH: Final = 12
MAX_LENGTH: Final = 1024
_MIN_DISTINCT: Final = 5
_COMMON: Final = frozenset(
    {
        "123456789012",
        "1234567890123",
        "administrator",
        "azertyuiop12",
        "azertyuiopqs",
        "bienvenue123",
        "changeme1234",
        "changemeplease",
        "correcthorsebatterystaple",
        "iloveyou1234",
        "letmeinplease",
        "motdepasse12",
        "motdepasse123",
        "motdepasse1234",
        "password1234",
        "password12345",
        "passwordpassword",
        "qwertyuiop12",
        "qwertyuiop123",
        "qwertyuiopas",
        "welcome12345",
    }
)


def prepare(password: str) -> str:
    """The form that is hashed: NFKC, so that one keyboard's accents are another's."""
    return unicodedata.normalize("NFKC", password)


def password_problems(field: str, password: str, email: str) -> list[Problem]:
    """Everything that keeps `password` from being the password of the user with that e-mail address.

    Length is what counts (NIST SP 800-63B): no rule on kinds of characters.
    """
    text = prepare(password)
    folded = text.casefold()
    local, _, _ = email.casefold().partition("@")
    problems: list[Problem] = []
    if len(text) < MIN_LENGTH:
        problems.append(
            Problem(field, "PASSWORD_TOO_SHORT", f"A password has at least {MIN_LENGTH} characters.")
        )
    if len(text) > MAX_LENGTH:
        problems.append(
            Problem(field, "PASSWORD_TOO_LONG", f"A password has at most {MAX_LENGTH} characters.")
        )
    if "\0" in text:
        problems.append(Problem(field, "PASSWORD_HAS_NUL", "A password has no NUL character."))
    if folded in _COMMON or len(set(folded)) < _MIN_DISTINCT:
        problems.append(
            Problem(field, "PASSWORD_COMMON", "This password is among the first that are guessed.")
        )
    if folded in (email.casefold(), local):
        problems.append(Problem(field, "PASSWORD_IS_EMAIL", "A password is not the e-mail address."))
    return problems
