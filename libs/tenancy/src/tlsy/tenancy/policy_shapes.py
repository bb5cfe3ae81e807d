"""The only policies that a table may have, as PostgreSQL writes them back.

`tlsy.protect` makes these and nothing else does; the linter compares text, so that any other policy, however
close, is a finding. Two shapes: 'tenant', and 'platform' in the control database.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_TENANT: Final = (
    "(( SELECT NULLIF(current_setting('app.current_tenant'::text, true), ''::text) AS \"nullif\"))::uuid"
)
_PLATFORM: Final = (
    "(( SELECT NULLIF(current_setting('app.scope'::text, true), ''::text) AS \"nullif\") = 'platform'::text)"
)
_FENCED: Final = (
    "(f.tenant_id = (NULLIF(current_setting('app.current_tenant'::text, true), ''::text))::uuid)"
    " AND (f.epoch = (NULLIF(current_setting('app.epoch'::text, true), ''::text))::bigint)"
)
_READABLE: Final = f"(EXISTS ( SELECT FROM tlsy.fence f WHERE ({_FENCED})))"
_WRITABLE: Final = f"(EXISTS ( SELECT FROM tlsy.fence f WHERE ({_FENCED} AND f.writable)))"
_OWN: Final = f"(tenant_id = {_TENANT})"

#: The fence table's own policy: one row by its key, without sub-select.
FENCE_POLICY: Final = "((tenant_id)::text = current_setting('app.current_tenant'::text, true))"

#: Commands as pg_policy.polcmd has them.
ALL: Final = "*"
DELETE: Final = "d"

#: The one exception, on outboxes alone: the relay reads and marks every tenant's rows.
OF_RELAY: Final[Mapping[tuple[str, bool, str], tuple[str, str]]] = MappingProxyType(
    {("relay_reads", True, "r"): ("true", ""), ("relay_marks", True, "w"): ("true", "true")}
)


def shape(*, platform: bool) -> dict[tuple[str, bool, str], tuple[str, str]]:
    """The policies of a shape: (name, permissive, command) -> (USING, WITH CHECK)."""

    def either(text: str) -> str:
        return f"({text} OR {_PLATFORM})" if platform else text

    own, readable, writable = either(_OWN), either(_READABLE), either(_WRITABLE)
    return {
        ("tenant", True, ALL): (own, own),
        ("fence", False, ALL): (readable, writable),
        ("fence_delete", False, DELETE): (writable, ""),
    }
