from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from kio.static.primitive import i32Timedelta
from kio.static.protocol import RequestPayload, ResponsePayload

NO_THROTTLE: Final[i32Timedelta] = i32Timedelta.parse(timedelta(0))
PRODUCE_KEY: Final = 0
API_VERSIONS_KEY: Final = 18
NODE_ID: Final = 1
"""The one broker of the cluster: leader of every partition, coordinator of every group."""


class DisconnectError(Exception):
    """A request that wants no response has failed; losing the connection is the only way to say so."""


class MalformedRequestError(Exception):
    """The bytes are not a request of an API and version that is spoken here; the connection is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sends a request, and the address by which the broker was reached."""

    client_id: str
    client_host: str
    broker_host: str
    broker_port: int
    api_version: int


Handler = Callable[[Any, Caller], Awaitable[ResponsePayload | None]]


@dataclass(frozen=True, slots=True)
class Api:
    """An API: the request type of its newest version (which the handler takes), its oldest, its handler."""

    newest: type[RequestPayload]
    oldest_version: int
    handle: Handler

    @property
    def key(self) -> int:
        """The API key of the protocol."""
        return self.newest.__api_key__

    @property
    def newest_version(self) -> int:
        """The newest version spoken."""
        return self.newest.__version__
