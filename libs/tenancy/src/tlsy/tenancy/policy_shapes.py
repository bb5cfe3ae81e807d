"""The only policies that a table may have, as PostgreSQL writes them back.

`tlsy.protect` makes these and nothing else does; the linter compares text, so that any other policy, however
close, is a finding. Two shapes: 'tenant', and 'platform' in the control database.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Name, whether permissive, and command.
Key: TypeAlias = tuple[str, bool, str]
#: USING and WITH CHECK.
Texts: TypeAlias = tuple[str, str]

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
SELECT: Final = "r"
UPDATE: Final = "w"
#: And as SQL has them.
COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {ALL: "all", DELETE: "delete", SELECT: "select", UPDATE: "update"}
)

#: The one exception, on outboxes alone: the relay reads and marks every tenant's rows.
OF_RELAY: Final[Mapping[Key, Texts]] = MappingProxyType(
    {("relay_reads", True, SELECT): ("true", ""), ("relay_marks", True, UPDATE): ("true", "true")}
)


def shape(*, platform: bool) -> dict[Key, Texts]:
    """The policies of a shape."""

    def either(text: str) -> str:
        return f"({text} OR {_PLATFORM})" if platform else text

    own, readable, writable = either(_OWN), either(_READABLE), either(_WRITABLE)
    return {
        ("tenant", True, ALL): (own, own),
        ("fence", False, ALL): (readable, writable),
        ("fence_delete", False, DELETE): (writable, ""),
    }
