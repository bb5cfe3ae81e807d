"""One deployment at a time: its Lease is renewed while it lives, and anybody's soon after a kill."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.lease import Lease
from deploy.rollout import CommandError

START = datetime(2026, 11, 26, 20, 0, tzinfo=UTC)


class FakeCommands:
    """kubectl for one Lease: what an API server does with it."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.answers = True
        self.patched = threading.Event()

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        if not self.answers:
            raise CommandError("connection refused")
        verb = arguments[0]
        if verb == "get":
            return json.dumps(self.lease) if self.lease else ""
        if verb == "delete":
            self.lease = None
        elif verb == "patch":
            self._patch(json.loads(arguments[3].removeprefix("--patch=")))
        else:
            self._write(verb, json.loads(stdin))
        return ""

    def _write(self, verb: str, written: dict[str, Any]) -> None:
        if verb == "create" and self.lease:
            raise CommandError("AlreadyExists")
        if verb == "replace" and written["metadata"]["resourceVersion"] != str(self.version):
            raise CommandError("Conflict")
        self.version += 1
        written["metadata"]["resourceVersion"] = str(self.version)
        self.lease = written

    def _patch(self, operations: list[dict[str, str]]) -> None:
        if not self.lease:
            raise CommandError("NotFound")
        for each in operations:
            field = each["path"].removeprefix("/spec/")
            if each["op"] == "test" and self.lease["spec"][field] != each["value"]:
                raise CommandError("the server rejected our request: test failed")
            self.lease["spec"][field] = each["value"]
        self.patched.set()


@pytest.fixture
def commands() -> FakeCommands:
    return FakeCommands()


def lease(commands: FakeCommands, after_s: float = 0, renew_s: float = 3600) -> Lease:
    return Lease(commands, "suite-deploy", lambda: START + timedelta(seconds=after_s), renew_s)


def test_the_second_is_told_who_since_when_and_until_when(commands):
    with lease(commands), pytest.raises(CommandError) as refused, lease(commands, after_s=59):
        pass
    said = str(refused.value)
    assert [
        part
        for part in ("process ", "since 2026-11-26T20:00:00", "after 20:01:00 UTC", "lease/suite-deploy")
        if part not in said
    ] == []


def test_what_a_killed_one_held_is_anybodys_a_minute_later(commands):
    lease(commands).__enter__()  # and nothing more is heard of it
    with lease(commands, after_s=60) as taken:
        taken.assure()
    assert commands.lease is None


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"holderIdentity": "", "leaseDurationSeconds": 60, "renewTime": "2026-11-26T20:00:00.000000Z"},
        {"holderIdentity": "somebody"},
        {"holderIdentity": "somebody", "renewTime": "2026-11-26T20:00:00.000000Z"},
        None,
    ],
)
def test_one_that_somebody_left_without_a_holder_or_a_time_is_anybodys(commands, spec):
    written = {"metadata": {"name": "suite-deploy"}, **({} if spec is None else {"spec": spec})}
    commands("create", stdin=json.dumps(written))
    with lease(commands) as taken:
        taken.assure()
    assert commands.lease is None


def test_one_of_which_only_the_last_renewal_is_told_is_held_until_it_runs_out(commands):
    renewed = {"holderIdentity": "somebody", "leaseDurationSeconds": 60, "renewTime": "2026-11-26T20:00:00Z"}
    commands("create", stdin=json.dumps({"metadata": {}, "spec": renewed}))
    with (
        pytest.raises(CommandError, match="somebody is deploying since 2026-11-26T20:00:00Z"),
        lease(commands),
    ):
        pass


def test_it_is_renewed_while_its_holder_lives(commands):
    clock = [START]
    with Lease(commands, "suite-deploy", lambda: clock[0], renew_s=0.001):
        clock[0] += timedelta(minutes=5)
        for _ in range(2):  # the first may have looked at the clock before
            commands.patched.clear()
            assert commands.patched.wait(10)
        with pytest.raises(CommandError, match=r"after 20:06:00 UTC"), lease(commands, after_s=301):
            pass


def test_who_was_away_too_long_learns_that_somebody_else_deploys(commands):
    clock = [START]
    with Lease(commands, "suite-deploy", lambda: clock[0], renew_s=3600) as slow:
        clock[0] += timedelta(seconds=61)
        with lease(commands, after_s=61):
            with pytest.raises(CommandError, match="nothing keeps others from deploying any longer"):
                slow.assure()
            slow.__exit__()
            assert commands.lease is not None


def test_who_was_away_and_was_not_missed_goes_on(commands):
    clock = [START]
    with Lease(commands, "suite-deploy", lambda: clock[0], renew_s=3600) as slow:
        clock[0] += timedelta(seconds=61)
        commands.answers = False
        with pytest.raises(CommandError, match="connection refused"):
            slow.assure()
        commands.answers = True
        slow.assure()
        with pytest.raises(CommandError, match="is deploying"), lease(commands, after_s=62):
            pass


def test_of_two_that_find_it_run_out_one_takes_it(commands):
    lease(commands).__enter__()
    found = json.dumps(commands.lease)
    with lease(commands, after_s=60):

        class Late(FakeCommands):
            """Has read it before the other took it."""

            def __call__(self, *arguments: str, stdin: str = "") -> str:
                return found if arguments[0] == "get" else commands(*arguments, stdin=stdin)

        with pytest.raises(CommandError, match="Conflict"), lease(Late(), after_s=60):
            pass


def test_who_took_it_and_was_not_told_so_has_it():
    class Deaf(FakeCommands):
        """The answer to the first call is lost."""

        def __call__(self, *arguments: str, stdin: str = "") -> str:
            said = super().__call__(*arguments, stdin=stdin)
            if arguments[0] == "create":
                raise CommandError("connection reset by peer")
            return said

    deaf = Deaf()
    with lease(deaf):
        assert deaf.lease is not None
    assert deaf.lease is None


def test_one_that_another_took_at_the_same_moment_is_not_ones_own(commands):
    lease(commands).__enter__()
    commands.lease["spec"]["holderIdentity"] = "process 1 of another"
    with pytest.raises(CommandError, match="process 1 of another is deploying"), lease(commands):
        pass
