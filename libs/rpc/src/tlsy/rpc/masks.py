"""Field masks: which fields an update changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rpc.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from google.protobuf.field_mask_pb2 import FieldMask


def masked_fields(mask: FieldMask, allowed: AbstractSet[str]) -> frozenset[str]:
    """The top-level fields that `mask` names; "*" means all that may be changed.

    Raises:
        InvalidArgument: with a violation per path that is unknown or immutable (UPDATE_MASK_UNKNOWN_PATH), or
            one if the mask is empty (UPDATE_MASK_EMPTY): an update that changes nothing is a mistake.
    """
    paths = list(mask.paths)
    if not paths:
        raise InvalidArgument(
            violations=[Violation("update_mask", "UPDATE_MASK_EMPTY", "name the fields to change")]
        )
    if paths == ["*"]:
        return frozenset(allowed)
    unknown = sorted(set(paths) - allowed)
    if unknown:
        known = ", ".join(sorted(allowed))
        raise InvalidArgument(
            violations=[
                Violation(
                    "update_mask",
                    "UPDATE_MASK_UNKNOWN_PATH",
                    f'"{path[:64]}" cannot be changed; only {known}',
                )
                for path in unknown
            ]
        )
    return frozenset(paths)
