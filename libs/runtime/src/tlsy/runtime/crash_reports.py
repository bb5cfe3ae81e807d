"""Crash reports: what is logged with a traceback at the level of an error or worse, sent to Sentry.

Only if there is a DSN: without one the SDK, an optional extra, is not even imported. A report has the
exception, its source lines and whose call it was, never the values of variables: frames hold passwords.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from tlsy.runtime.logging import without_secrets
from tlsy.runtime.settings import SettingsInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLUSH_S: Final = 2.0
_TAGS: Final = ("tenant", "request_id", "trace_id", "component", "service", "method")


class CrashReports:
    """Sends reports; made by `open_crash_reports`."""

    __slots__ = ("_client", "_event_of", "_process")

    def __init__(self, process: str, client: Any, event_of: Any) -> None:
        self._process = process
        self._client = client
        self._event_of = event_of

    def report(self, error: BaseException, fields: Mapping[str, object]) -> None:
        """Hand over one error with the fields of its log line; does not wait."""
        event, hint = self._event_of(error, client_options=self._client.options)
        for value in event["exception"]["values"]:
            value["value"] = without_secrets(str(value.get("value", "")))
        tags = {name: str(fields[name]) for name in _TAGS if fields.get(name)}
        message = without_secrets(str(fields.get("event", "")))
        event |= {"logger": self._process, "message": message, "tags": tags}
        self._client.capture_event(event, hint)

    def close(self) -> None:
        """Send what is buffered, for 2 s at most."""
        self._client.close(timeout=_FLUSH_S)


def open_crash_reports(
    process: str, dsn: str | None, *, variable: str, transport: Any = None
) -> CrashReports | None:
    """What reports crashes of this process, or None without a DSN.

    Args:
        process: names it in reports.
        dsn: where they go.
        variable: that the DSN was set by.
        transport: instead of Sentry's own, a class.

    Raises:
        SettingsInvalid: there is a DSN, but not the extra `sentry`, or the DSN is none.
    """
    if dsn is None:
        return None
    try:
        sdk = importlib.import_module("sentry_sdk")
    except ModuleNotFoundError:
        raise SettingsInvalid((f"{variable}: needs the extra `sentry` of tlsy-runtime.",)) from None
    utils = importlib.import_module("sentry_sdk.utils")
    try:
        # A client of its own: none of its integrations, which would read what services hold.
        client = sdk.Client(
            dsn=dsn,
            transport=transport,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            traces_sample_rate=None,
            release=version("tlsy-runtime"),
        )
    except utils.BadDsn:
        raise SettingsInvalid((f"{variable}: is no DSN of Sentry.",)) from None
    return CrashReports(process, client, utils.event_from_exception)
