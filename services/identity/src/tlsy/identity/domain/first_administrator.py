"""What the settings say of the platform's first administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.identity.domain.emails import email_problems
from tlsy.identity.domain.passwords import password_problems

if TYPE_CHECKING:
    from tlsy.identity.domain.ids import Problem


def first_administrator_problems(email: str, password: str) -> list[Problem]:
    """What is wrong with the settings, named as they are."""
    if not email:
        return []
    return [
        *email_problems("bootstrap_admin_email", email),
        *password_problems("bootstrap_admin_password", password, email),
    ]
