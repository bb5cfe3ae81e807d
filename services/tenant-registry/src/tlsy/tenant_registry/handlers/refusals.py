"""What the domain refuses, as callers get it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tlsy.rpc.errors import FailedPrecondition, InvalidArgument, Unavailable, Violation
from tlsy.tenant_registry.domain.errors import InvalidError, NotAllowedNowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tlsy.tenant_registry.domain import errors

_RETRY_AFTER_S: Final = 2.0


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the domain's errors into the suite's: INVALID_ARGUMENT, FAILED_PRECONDITION or UNAVAILABLE."""
    try:
        yield
    except InvalidError as error:
        raise InvalidArgument(violations=_told(error.violations)) from error
    except NotAllowedNowError as error:
        if error.retryable:
            raise Unavailable(error.reason, str(error), retry_after_s=_RETRY_AFTER_S) from error
        raise FailedPrecondition(error.reason, str(error)) from error


def refuse_all(violations: Sequence[errors.Violation], also: Sequence[Violation]) -> None:
    """Raise InvalidArgument with all of them, if there are any; `also`: what the translation found."""
    if violations or also:
        raise InvalidArgument(violations=[*also, *_told(violations)])


def clusters_fill() -> Unavailable:
    """Each cluster that was chosen was full before its room was had."""
    text = "Every cluster that had room was filled or closed meanwhile."
    return Unavailable("CLUSTERS_CHANGING", text, retry_after_s=_RETRY_AFTER_S)


def _told(violations: Iterable[errors.Violation]) -> list[Violation]:
    return [Violation(found.field, found.reason, found.message) for found in violations]
