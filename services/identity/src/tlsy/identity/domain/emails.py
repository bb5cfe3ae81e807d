"""E-mail addresses as log-in names.

An address is compared in one normal form, and kept as it was typed: what is before the @ folded and in NFC,
the domain in the ASCII form that mail goes to (IDNA 2008 after UTS 46 mapping): straße.de is not strasse.de.
Blanks around it belong to neither. It is not proved to exist: only a message can do that.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import idna

from tlsy.identity.domain.ids import Problem

MAX_EMAIL_BYTES: Final = 254
_LOCAL: Final = re.compile(r"[^\s@\"(),:;<>\[\]\\]{1,64}")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def stripped(email: str) -> str:
    """The address as it is kept."""
    return email.strip()


def normalise(email: str) -> str | None:
    """The form that two spellings of one address share; None: not an address."""
    typed = stripped(email)
    before, at, domain = typed.rpartition("@")
    # Taken apart first: a letter with two marks has no capital of its own, and folds to its parts.
    local = unicodedata.normalize("NFC", unicodedata.normalize("NFD", before).casefold())
    if not at or not _LOCAL.fullmatch(local) or not typed.isprintable():
        return None
    if len(typed.encode(errors="replace")) > MAX_EMAIL_BYTES:
        return None
    if local.startswith(".") or local.endswith(".") or ".." in local:
        return None
    try:
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True).decode("ascii").lower()
    except idna.IDNAError:
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
