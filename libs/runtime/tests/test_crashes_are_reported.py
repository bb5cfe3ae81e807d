from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest
from sentry_sdk.transport import Transport

from tlsy.runtime.crash_reports import open_crash_reports
from tlsy.runtime.logging import get_logger, reset_log_fields, set_log_fields
from tlsy.runtime.settings import SettingsInvalid
from tlsy.testkit.logs import recorded_logs

DSN = "https://key@sentry.example.org/1"
TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"
PASSWORD = "hunter2"


class Recorded(Transport):
    """What would have been sent."""

    sent: list[bytes]

    def capture_envelope(self, envelope):
        self.sent.append(envelope.serialize())


@pytest.fixture
def sent():
    Recorded.sent = []
    reports = open_crash_reports("shop", DSN, variable="X", transport=Recorded)
    assert reports is not None
    with recorded_logs(report=reports.report):
        yield Recorded.sent
    reports.close()


def log_in(typed: str) -> None:
    raise RuntimeError(f"the till broke, with {TOKEN}")


def test_what_a_library_says_of_an_error_is_reported_without_credentials(sent):
    try:
        log_in(PASSWORD)
    except RuntimeError as error:
        told = repr(error)
        logging.getLogger("a.library").exception("nobody waited for %s", told)
    (envelope,) = sent
    assert json.loads(envelope.splitlines()[-1])["message"].startswith("nobody waited for RuntimeError")
    assert TOKEN.encode() not in envelope


def test_an_error_is_one_report_without_the_password(sent):
    token = set_log_fields({"tenant": "acme", "request_id": "r-1", "trace_id": "t-1"})
    try:
        log_in(PASSWORD)
    except RuntimeError as error:
        get_logger("rpc.server").error("call failed", method="LogIn", exc_info=error)
    finally:
        reset_log_fields(token)
    (envelope,) = sent
    event = json.loads(envelope.splitlines()[-1])
    assert event["exception"]["values"][0]["value"] == "the till broke, with [redacted]"
    assert event["tags"] == {
        "tenant": "acme",
        "request_id": "r-1",
        "trace_id": "t-1",
        "component": "rpc.server",
        "method": "LogIn",
    }
    assert PASSWORD.encode() not in envelope
    assert b"log_in" in envelope


def test_errors_of_libraries_are_reported_too(sent):
    try:
        log_in(PASSWORD)
    except RuntimeError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    assert len(sent) == 1


def test_what_is_no_error_is_not_reported(sent):
    get_logger("shop").error("closed")
    try:
        log_in(PASSWORD)
    except RuntimeError as error:
        get_logger("shop").warning("trying again", exc_info=error)
    assert sent == []


def test_a_dsn_that_is_none_is_a_wrong_setting():
    with pytest.raises(SettingsInvalid, match=r"TLSY_SENTRY_DSN: is no DSN"):
        open_crash_reports("shop", "nonsense", variable="TLSY_SENTRY_DSN")


def test_without_a_dsn_the_sdk_is_not_even_imported():
    program = (
        "import sys, tlsy.runtime.host as h\n"
        "assert h.open_crash_reports('shop', None, variable='X') is None\n"
        "sys.exit('sentry_sdk' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
