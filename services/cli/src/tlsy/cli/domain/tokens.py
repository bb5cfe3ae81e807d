"""What an access token says of itself; the signature is the services' business."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A token as it is kept.

    Attributes:
        text: goes into the authorization header.
        tenant: "tenants/{slug}" that it acts in.
        principal: whose it is.
        expires_at_s: since 1970.
    """

    text: str
    tenant: str
    principal: str
    expires_at_s: float


def payload(token: str) -> dict[str, Any]:
    """The claims, unverified; empty if it is no JSON web token."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}
