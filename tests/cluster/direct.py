"""A cluster is on this machine and is asked without a proxy, whatever the environment says of one."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ssl

_TIMEOUT_S: Final = 20.0


def environment() -> dict[str, str]:
    """This process's without proxies, which programs in Go and Python would obey."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def answer(url: str, trusted: ssl.SSLContext | None = None, timeout_s: float = _TIMEOUT_S) -> bytes:
    """What is said at an address.

    Raises:
        OSError: there is no answer, or not with success (urllib.error.HTTPError).
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if trusted is not None:
        handlers.append(urllib.request.HTTPSHandler(context=trusted))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=timeout_s) as said:
            content: bytes = said.read()
            return content
    except urllib.error.HTTPError as error:
        error.close()  # it is an answer, with a connection
        raise
