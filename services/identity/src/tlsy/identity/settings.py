"""What an operator may set of identity, and the file with its encryption keys."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from tlsy.identity.domain.emails import email_problems
from tlsy.identity.domain.passwords import password_problems
from tlsy.runtime.settings import ServiceSettings, SettingsInvalid, setting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tlsy.identity.domain.ids import Problem

KEY_BYTES: Final = 32
MAX_KEY_ID_BYTES: Final = 64


class IdentitySettings(ServiceSettings):
    """Prefix TLSY_IDENTITY_. Times in seconds."""

    model_config = SettingsConfigDict(env_prefix="TLSY_IDENTITY_")

    keys_file: Path = setting(
        unit="", why="encrypts personal data and signing keys at rest; without it nothing can be read"
    )
    bootstrap_admin_email: str = setting(
        "", unit="", why="the platform's first administrator, made once; empty: none is made"
    )
    bootstrap_admin_password: SecretStr = setting(
        SecretStr(""), unit="", why="of that administrator, at its first log-in", secret=True
    )
    bootstrap_key_file: Path | None = setting(
        None, unit="", why="where an API key of the platform is written once (mode 0600); none by default"
    )
    user_token_s: int = setting(
        3600,
        unit="s",
        why="a person logs in again after this; a revocation ends it earlier",
        ge=60,
        le=3600,
    )
    key_token_s: int = setting(
        600, unit="s", why="agents exchange their key again without a person", ge=60, le=3600
    )
    exchanged_token_s: int = setting(
        600, unit="s", why="acting in another tenant is kept short", ge=60, le=3600
    )
    max_failures: int = setting(
        5, unit="attempts", why="fewer are typing errors, guesses need more", ge=1, le=100
    )
    failure_window_s: int = setting(900, unit="s", why="failures farther apart are not an attack", ge=1)
    lock_s: int = setting(60, unit="s", why="the first lock; each further one is twice as long", ge=1)
    max_lock_s: int = setting(3600, unit="s", why="an owner gets back in within the hour", ge=1)
    tenant_failures: int = setting(
        100,
        unit="attempts",
        why="refused log-ins of one tenant at once, per replica",
        ge=1,
    )
    tenant_failures_per_s: float = setting(1.0, unit="attempts/s", why="at this rate they are forgiven", gt=0)
    key_exchanges: int = setting(
        100, unit="exchanges", why="of one key at once, per replica: a fleet that starts", ge=1
    )
    key_exchanges_per_s: float = setting(
        10.0, unit="exchanges/s", why="of one key in the long run; its tokens live for minutes", gt=0
    )
    refused_exchanges: int = setting(
        1000, unit="exchanges", why="of one tenant's keys at once, per replica: each reads a row", ge=1
    )
    refused_exchanges_per_s: float = setting(
        100.0,
        unit="exchanges/s",
        why="beyond it only the tenant's keys that were good lately are looked at",
        gt=0,
    )
    argon2_memory_kib: int = setting(19_456, unit="KiB", why="OWASP's least for two passes", ge=8)
    argon2_passes: int = setting(2, unit="passes", why="as above", ge=1)
    argon2_concurrency: int = setting(2, unit="threads", why="a core each; 20 MiB each", ge=1, le=64)
    argon2_queue: int = setting(64, unit="log-ins", why="2 s of waiting at 50 ms each on two cores", ge=0)
    signing_period_s: int = setting(
        30 * 86_400, unit="s", why="a month: often enough that rotation is routine", ge=600
    )
    jwks_cache_s: int = setting(
        300, unit="s", why="how long verifiers may keep the keys; the next one is announced longer", ge=1
    )
    ring_refresh_s: float = setting(
        5.0, unit="s", why="how long after a rotation another replica may still sign with the old key", gt=0
    )
    clock_leeway_s: float = setting(60.0, unit="s", why="the most that clocks differ", ge=0)
    keep_retired_s: int = setting(
        90 * 86_400, unit="s", why="retired keys stay as facts, without their private part", ge=0
    )

    @field_validator("bootstrap_admin_email")
    @classmethod
    def _is_an_address(cls, email: str) -> str:
        _refuse(email_problems("", email) if email else [])
        return email

    @field_validator("bootstrap_admin_password")
    @classmethod
    def _is_strong(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        """A weak first password is refused at the start, not at the first log-in."""
        # None: there is one, and it is wrong.
        email = info.data.get("bootstrap_admin_email")
        if email != "":
            _refuse(password_problems("", password.get_secret_value(), email or ""))
        return password


@dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """What a password hash costs, and how many may cost it at once."""

    memory_kib: int
    passes: int
    concurrency: int
    queue: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryKeys:
    """256-bit keys by id. New values use `current`; the others open old values."""

    current: str
    sealing: dict[str, bytes] = field(repr=False)
    lookup: bytes = field(repr=False)


def new_keys_file(random: Callable[[int], bytes]) -> str:
    """The text of a keys file with fresh keys; to be stored with mode 0600 and backed up."""
    document = {
        "current": "k1",
        "sealing": {"k1": base64.b64encode(random(KEY_BYTES)).decode()},
        "lookup": base64.b64encode(random(KEY_BYTES)).decode(),
    }
    return json.dumps(document, indent=2) + "\n"


def read_keys(path: Path) -> DirectoryKeys:
    """Read a keys file.

    Raises:
        SettingsInvalid: it is missing, malformed, or a key is not 32 bytes of base64; no key is named.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _invalid(path, [type(error).__name__]) from None
    if not isinstance(document, dict) or not isinstance(document.get("sealing"), dict):
        raise _invalid(path, ["an object with current, sealing and lookup is expected"])
    problems: list[str] = []
    sealing = {name: _key(f"sealing.{name}", text, problems) for name, text in document["sealing"].items()}
    lookup = _key("lookup", document.get("lookup"), problems)
    if not all(0 < len(name.encode()) <= MAX_KEY_ID_BYTES for name in sealing):
        problems.append(f"sealing: an id has 1 to {MAX_KEY_ID_BYTES} bytes")
    current = document.get("current")
    if current not in sealing:
        problems.append("current: names a key of sealing")
    if problems:
        raise _invalid(path, problems)
    return DirectoryKeys(current=str(current), sealing=sealing, lookup=lookup)


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise ValueError(" ".join(problem.description for problem in problems))


def _invalid(path: Path, problems: Sequence[str]) -> SettingsInvalid:
    return SettingsInvalid(tuple(f"TLSY_IDENTITY_KEYS_FILE: {path}: {problem}" for problem in problems))


def _key(name: str, text: Any, problems: list[str]) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        problems.append(f"{name}: 32 bytes in base64 are expected")
    return key
