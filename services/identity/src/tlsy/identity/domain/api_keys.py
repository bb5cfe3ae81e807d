"""API keys of agents: `tlsy_<tenant id>_<key id>_<secret>`, all in lower-case hex.

The secret is 256 random bits, so its SHA-256 can be stored as it is: there is nothing to guess, and a slow
hash would only slow down the exchange.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from tlsy.identity.domain.ids import KeyId, Problem

SECRET_BYTES: Final = 32
PREFIX_LENGTH: Final = 8
MAX_DISPLAY_NAME: Final = 200
LAST_USED_STEP: Final = timedelta(hours=1)
_KEY: Final = re.compile(r"tlsy_([0-9a-f]{32})_([0-9a-f]{32})_([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. It holds no secret.

    Attributes:
        role: given to it when it was created; what it may do now is decided by its bindings.
        last_used_time: to the hour; None: never used.
        last_issued_time: of its last token, by the clock that issued it; a revocation covers it.
    """

    id: KeyId
    display_name: str
    role: str
    secret_hash: bytes = field(repr=False)
    prefix: str
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    last_used_time: datetime | None
    last_issued_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """What a caller sent, taken apart and not yet believed."""

    tenant_id: UUID
    key_id: KeyId
    secret_hash: bytes = field(repr=False)


def render(tenant_id: UUID, key_id: KeyId, secret: bytes) -> str:
    """The text that is shown once."""
    return f"tlsy_{tenant_id.hex}_{key_id.hex}_{secret.hex()}"


def hash_secret(secret: bytes) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret).digest()


def prefix_of(secret: bytes) -> str:
    """What is shown of a secret to tell keys apart: 32 of its 256 bits."""
    return secret.hex()[:PREFIX_LENGTH]


def parse(text: str) -> PresentedKey | None:
    """None: not a key at all."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None
    tenant, key, secret = match.groups()
    return PresentedKey(UUID(hex=tenant), KeyId(UUID(hex=key)), hash_secret(bytes.fromhex(secret)))


def refusal(stored: ApiKey | None, presented: PresentedKey, now: datetime) -> str | None:
    """Why the presented key is refused, for the audit log alone; None: it is good.

    The secret is compared first and in constant time: whoever does not hold it learns nothing of the key.
    """
    if stored is None:
        return "KEY_UNKNOWN"
    if not hmac.compare_digest(stored.secret_hash, presented.secret_hash):
        return "KEY_SECRET_WRONG"
    if stored.revoke_time is not None:
        return "KEY_REVOKED"
    if stored.expire_time is not None and now >= stored.expire_time:
        return "KEY_EXPIRED"
    return None


def use_is_news(key: ApiKey, now: datetime) -> bool:
    """Whether `last_used_time` is to be written: once an hour, not on each exchange."""
    return key.last_used_time is None or now - key.last_used_time >= LAST_USED_STEP


def key_problems(display_name: str, expire_time: datetime | None, now: datetime) -> list[Problem]:
    """What is wrong with a key to be created, its role aside."""
    problems: list[Problem] = []
    if not display_name.strip():
        problems.append(Problem("display_name", "DISPLAY_NAME_REQUIRED", "Say what the key is for."))
    if len(display_name) > MAX_DISPLAY_NAME:
        problems.append(
            Problem("display_name", "DISPLAY_NAME_TOO_LONG", f"At most {MAX_DISPLAY_NAME} characters.")
        )
    if not all(char.isprintable() for char in display_name):
        problems.append(
            Problem("display_name", "DISPLAY_NAME_UNPRINTABLE", "No control characters in a name.")
        )
    if expire_time is not None and expire_time <= now:
        problems.append(Problem("expire_time", "EXPIRY_IN_THE_PAST", "A key expires in the future or never."))
    return problems
