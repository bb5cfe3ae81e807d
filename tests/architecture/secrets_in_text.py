"""Finds secrets in text: what looks like a key that a service gave, and what is random and called a secret.

It reads files as they are, in a second or two for the whole repository, and knows the common kinds. What was
committed once and removed it does not see: `make check-delivery` looks through the history.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: A name for each kind, and how such a secret is written. The group is what is secret.
KINDS: Final = {
    "private key": r"(-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:\\n|\s)+[A-Za-z0-9+/=]{40,})",
    "age key": r"\b(AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{40,})",
    "API key of this product": r"\b(tlsy_[0-9a-f]{32}_[0-9a-f]{32}_[0-9a-f]{64})\b",
    "AWS key": r"\b((?:AKIA|ASIA)[A-Z0-9]{16})\b",
    "GitHub token": r"\b(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b",
    "GitLab token": r"\b(gl(?:pat|dt|rt)-[\w-]{20,})",
    "Slack token": r"\b(xox[abeoprs]-[\w-]{20,}|hooks\.slack\.com/services/T\w+/B\w+/\w{20,})",
    "Stripe key": r"\b((?:[rs]k_(?:live|test)|whsec)_[A-Za-z0-9]{20,})",
    "Google key": r"\b(AIza[\w-]{35}|GOCSPX-[\w-]{28})",
    "SendGrid key": r"\b(SG\.[\w-]{22}\.[\w-]{43})",
    "model provider's key": r"\b(sk-(?:ant-|proj-|svcacct-)?[\w-]{40,}|hf_[A-Za-z0-9]{34})\b",
    "package registry's token": r"\b(npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{50,})",
    "Sentry DSN": r"https://([0-9a-f]{32})@[\w.-]+/\d+",
    "signed token": r"\b(eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{40,})",
    "client key of a kubeconfig": r"client-key-data:\s*([A-Za-z0-9+/=]{40,})",
    "password in a URL": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"<>{}$]+:(?!password@)([^\s/@'\"<>{}$]{8,})@",
}
_KNOWN: Final = {kind: re.compile(pattern) for kind, pattern in KINDS.items()}
NAMED: Final = "something random that is called a secret"
_NAMED: Final = re.compile(
    r"(?i:passw(?:or)?d|secret|token|credential|api_?key|access_?key|private_?key|auth)\w{0,20}[\"']?\]?\s*"
    r"(?::\s*\w+\s*=|[:=]>?|,)"
    # What is not quoted is on the same line.
    r"(?:\s*[\"']([A-Za-z0-9+/_=.~!@#$%^&*-]{16,})|[^\S\n]*([A-Za-z0-9+/_=~!@#%^&*-]{16,})(?![\w.(]))",
)
#: Bits for each letter: words and names are below, keys in hex and base64 above.
_RANDOM_BITS: Final = 3.5


@dataclass(frozen=True, slots=True)
class Found:
    """A secret in a file, told by what it is and a fingerprint, never by itself."""

    path: str
    line: int
    kind: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind}, fingerprint {self.fingerprint}"


def fingerprint(secret: str) -> str:
    """Names a secret in the list of those that are allowed, and does not give it away."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


def secrets_of(name: str, text: str) -> Iterator[Found]:
    """The secrets of a text, one per place and kind."""
    spans: list[tuple[int, int]] = []
    for kind, pattern in _KNOWN.items():
        for match in pattern.finditer(text):
            spans.append(match.span(1))
            yield _found(name, text, match, kind)
    for match in _NAMED.finditer(text):
        group = match.lastindex or 1  # quoted or not; what is not quoted and has dots is a name in a program
        start, end = match.span(group)
        told = any(begin < end and start < stop for begin, stop in spans)
        if not told and _is_random(match[group]):
            yield _found(name, text, match, NAMED)


def _found(name: str, text: str, match: re.Match[str], kind: str) -> Found:
    group = match.lastindex or 1
    return Found(name, text.count("\n", 0, match.start(group)) + 1, kind, fingerprint(match[group]))


def _is_random(value: str) -> bool:
    """Digits among letters, and no letter much more often than chance would have it."""
    mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    counts = Counter(value).values()
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts)
    return bool(mixed) and bits >= _RANDOM_BITS


@dataclass(frozen=True, slots=True)
class Allowed:
    """A finding that is none, and why."""

    path: str
    fingerprint: str
    reason: str


def allowed(file: Path) -> list[Allowed]:
    """The findings that somebody looked at. Each needs its reason."""
    entries = tomllib.loads(file.read_text(encoding="utf-8")).get("allowed", [])
    listed = [Allowed(**entry) for entry in entries]
    if nameless := [entry.path for entry in listed if not entry.reason.strip()]:
        raise ValueError(f"{file.name}: no reason given for {', '.join(nameless)}")
    return listed


def problems(found: Iterable[Found], known: Iterable[Allowed]) -> list[str]:
    """Secrets that nobody allowed, and allowances that allow nothing any more."""
    unused = {(entry.path, entry.fingerprint) for entry in known}
    unknown = []
    allowances = frozenset(unused)
    for each in found:
        place = (each.path, each.fingerprint)
        unused.discard(place)
        if place not in allowances:
            unknown.append(str(each))
    return unknown + [f"{path}: {mark} is allowed and not there" for path, mark in sorted(unused)]
