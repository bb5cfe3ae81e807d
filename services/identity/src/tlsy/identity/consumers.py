"""Which events identity takes, and who takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tlsy.contracts.events import PRINCIPAL_REVOKED, TOPICS
from tlsy.eventlog.delivery import Direct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tlsy.eventlog.delivery import Route
    from tlsy.identity.handlers.on_principal_revoked import OnPrincipalRevoked

GROUP: Final = "identity"
SUBSCRIBED: Final = (TOPICS["identity"],)


def routes(on_principal_revoked: OnPrincipalRevoked) -> Mapping[str, Route]:
    """CloudEvents type to handler; its own events, to collect all tenants' revocations in one place."""
    return {PRINCIPAL_REVOKED: Direct(on_principal_revoked.run)}
