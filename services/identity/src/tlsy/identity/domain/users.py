"""Users of the embedded directory."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from tlsy.identity.domain.ids import Problem, UserId

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from tlsy.identity.domain.lockout import Attempts

MAX_DISPLAY_NAME: Final = 200
UPDATABLE: Final = frozenset({"display_name", "disabled", "locale"})
_LOCALE: Final = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One person of one tenant. E-mail address and display name are personal data: in no log and no event.

    Attributes:
        email: as typed; unique in the tenant in its normal form.
        password_hash: argon2id in PHC form; None: no password, no log-in by password.
        version: grows with every change of what a client may write; the etag is made of it.
    """

    id: UserId
    email: str = field(repr=False)
    display_name: str = field(repr=False)
    locale: str
    disabled: bool
    password_hash: str | None = field(repr=False)
    attempts: Attempts
    create_time: datetime
    last_log_in_time: datetime | None
    version: int


def profile_problems(prefix: str, display_name: str, locale: str) -> list[Problem]:
    """What is wrong with the fields a client may write at any time."""
    problems: list[Problem] = []
    if len(display_name) > MAX_DISPLAY_NAME:
        problems.append(
            Problem(
                f"{prefix}display_name", "DISPLAY_NAME_TOO_LONG", f"At most {MAX_DISPLAY_NAME} characters."
            )
        )
    if not all(char.isprintable() for char in display_name):
        problems.append(
            Problem(f"{prefix}display_name", "DISPLAY_NAME_UNPRINTABLE", "No control characters in a name.")
        )
    if locale and not _LOCALE.fullmatch(locale):
        problems.append(Problem(f"{prefix}locale", "LOCALE_MALFORMED", 'A BCP 47 tag, e.g. "fr-FR".'))
    return problems


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """The values of an update; which of them count is the mask's business."""

    display_name: str
    disabled: bool
    locale: str


def updated(user: User, change: UserChange, mask: Collection[str]) -> User:
    """The user after the masked fields of `change`; its version grows in any case."""
    return replace(
        user,
        display_name=change.display_name if "display_name" in mask else user.display_name,
        disabled=change.disabled if "disabled" in mask else user.disabled,
        locale=change.locale if "locale" in mask else user.locale,
        version=user.version + 1,
    )
