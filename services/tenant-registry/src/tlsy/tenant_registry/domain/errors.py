"""What domain functions answer when they refuse: values for bad input, one exception for a bad moment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with an input.

    Attributes:
        field: path in the request, e.g. "tenant.modules".
        reason: stable UPPER_SNAKE word that callers may switch on.
        message: one sentence for a person; never parsed.
    """

    field: str
    reason: str
    message: str


class NotAllowedNowError(Exception):
    """The input is sound, but the state of the catalogue does not allow it.

    Attributes:
        reason: stable UPPER_SNAKE word.
        retryable: whether the same call may succeed later without any change by the caller.
    """

    def __init__(self, reason: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class InvalidError(Exception):
    """An input with one or more violations, all of them."""

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        super().__init__(", ".join(f"{found.field}: {found.reason}" for found in violations))
        self.violations = violations


def refuse(violations: tuple[Violation, ...]) -> None:
    """Raise `InvalidError` unless there are no violations."""
    if violations:
        raise InvalidError(violations)
