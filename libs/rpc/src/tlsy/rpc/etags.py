"""Etags: an update says which state it was decided on."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tlsy.rpc.errors import Aborted

if TYPE_CHECKING:
    from uuid import UUID


def etag_of(resource_id: UUID | str, version: int) -> str:
    """The etag of a version of a resource: opaque, and different for another resource at the same version."""
    return hashlib.blake2b(f"{resource_id}:{version}".encode(), digest_size=12).hexdigest()


def check_etag(given: str, current: str) -> None:
    """Pass if the caller gave no etag or the current one.

    Raises:
        Aborted: reason ETAG_MISMATCH.
    """
    if given and given != current:
        raise Aborted("ETAG_MISMATCH", "It changed since you read it; read it again and repeat your change.")
