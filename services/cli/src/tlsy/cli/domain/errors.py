"""Why a command ends without having done what it was asked: what happened, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class CommandError(Exception):
    """Raise a subclass; its `exit_code` is documented in the README.

    Attributes:
        what: one line, what happened.
        next_step: one line, what to do about it.
        details: every single problem, where there are several.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, next_step: str, details: Sequence[str] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step
        self.details = tuple(details)


class RefusedError(CommandError):
    """The server, or a check, says no."""


class UsageError(CommandError):
    """The command line, a document or the contexts file is wrong."""

    exit_code = 2


class UnreachableError(CommandError):
    """The server did not answer."""

    exit_code = 3


class NotLoggedInError(CommandError):
    """There is no credential, or it is not good any more."""

    exit_code = 4
