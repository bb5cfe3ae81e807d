"""E-mail addresses as log-in names.

An address is compared in one normal form (NFC, trimmed, case folded; the domain in IDNA form), and kept as it
was typed. It is not proved to exist: only a message can do that.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from tlsy.identity.domain.ids import Problem

MAX_EMAIL_LENGTH: Final = 254
_LOCAL: Final = re.compile(r"[^\s@\"(),:;<>\[\]\\]{1,64}")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def normalise(email: str) -> str | None:
    """The form that two spellings of one address share; None: not an address."""
    text = unicodedata.normalize("NFC", email).strip().casefold()
    local, at, domain = text.rpartition("@")
    if not at or len(text) > MAX_EMAIL_LENGTH or not _LOCAL.fullmatch(local) or not local.isprintable():
        return None
    if local.startswith(".") or local.endswith(".") or ".." in local:
        return None
    try:
        ascii_domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        return None
    labels = ascii_domain.split(".")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):  # noqa: PLR2004  a domain and its top
        return None
    return f"{local}@{ascii_domain}"


def email_problems(field: str, email: str) -> list[Problem]:
    """What keeps `email` from being a log-in name."""
    if not email.strip():
        return [Problem(field, "EMAIL_REQUIRED", "An e-mail address is required.")]
    if normalise(email) is None:
        return [Problem(field, "EMAIL_MALFORMED", "This is not an e-mail address.")]
    return []
