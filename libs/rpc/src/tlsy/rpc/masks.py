"""Field masks: which fields an update changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlsy.rpc.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from google.protobuf.field_mask_pb2 import FieldMask
    from google.protobuf.message import Message


def masked_fields(
    mask: FieldMask, asked: Message, allowed: AbstractSet[str], violations: list[Violation]
) -> frozenset[str]:
    """The top-level fields of `asked` that `mask` names; "*" means all that may be changed.

    What is wrong with the mask is added to `violations`: one per path that is unknown or immutable
    (UPDATE_MASK_UNKNOWN_PATH), or one if it is empty (UPDATE_MASK_EMPTY): an update that changes nothing is a
    mistake. The fields are then those that it names and those that `asked` has a value for: it may have meant
    them, so what is wrong with them is told in the same answer.
    """
    named = frozenset(mask.paths)
    if named == {"*"}:
        return frozenset(allowed)
    unknown = sorted(named - allowed)
    if named and not unknown:
        return named
    if not named:
        violations.append(Violation("update_mask", "UPDATE_MASK_EMPTY", "name the fields to change"))
    known = ", ".join(sorted(allowed))
    violations += [
        Violation("update_mask", "UPDATE_MASK_UNKNOWN_PATH", f'"{path[:64]}" cannot be changed; only {known}')
        for path in unknown
    ]
    given = {field.name for field, _ in asked.ListFields()}
    return (named | given) & allowed
