"""Encryption at rest by the application, and the keyed hash that finds what is encrypted."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

_FORMAT: Final = 1
_NONCE_BYTES: Final = 12
_MAX_KEY_ID_BYTES: Final = 64


class SealBroken(Exception):  # noqa: N818  read as a fact in logs
    """A sealed value does not open: another key, another tenant's or column's value, or changed bytes."""


class Sealer:
    """Seals short texts with AES-256-GCM-SIV.

    A sealed value is: format (1 byte), length of the key id (1), key id, nonce (12), ciphertext with tag. The
    key id lets old values be opened after a new key became the current one. The place (tenant, table, column)
    is authenticated with it, so a value that is moved to another one does not open.
    """

    __slots__ = ("_current", "_keys", "_random")

    def __init__(self, keys: Mapping[str, bytes], current: str, random: Callable[[int], bytes]) -> None:
        self._keys = {key_id: AESGCMSIV(key) for key_id, key in keys.items()}
        self._current = current
        self._random = random

    def seal(self, tenant_id: UUID, table: str, column: str, text: str) -> bytes:
        """Encrypt under the current key."""
        key_id = self._current.encode()
        nonce = self._random(_NONCE_BYTES)
        sealed = self._keys[self._current].encrypt(nonce, text.encode(), _place(tenant_id, table, column))
        return bytes((_FORMAT, len(key_id))) + key_id + nonce + sealed

    def open(self, tenant_id: UUID, table: str, column: str, sealed: bytes) -> str:
        """Decrypt a value of this place.

        Raises:
            SealBroken: it is not one, or its key is not among ours.
        """
        if len(sealed) < 2 or sealed[0] != _FORMAT or sealed[1] > _MAX_KEY_ID_BYTES:  # noqa: PLR2004  the header
            raise SealBroken("not a sealed value")
        start = 2 + sealed[1]
        key = self._keys.get(sealed[2:start].decode(errors="replace"))
        if key is None:
            raise SealBroken("sealed with a key that is not among ours")
        nonce, ciphertext = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        try:
            return key.decrypt(nonce, ciphertext, _place(tenant_id, table, column)).decode()
        except (InvalidTag, ValueError) as error:
            raise SealBroken("does not open here") from error


class LookupHash:
    """HMAC-SHA-256 of a normal form under a key that is nowhere in the database.

    Bound to the tenant, so that one person has different hashes in two of them.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __call__(self, tenant_id: UUID, normal_form: str) -> bytes:
        """32 bytes."""
        return hmac.digest(self._key, tenant_id.bytes + normal_form.encode(), hashlib.sha256)


def _place(tenant_id: UUID, table: str, column: str) -> bytes:
    return f"{tenant_id}|{table}|{column}".encode()
