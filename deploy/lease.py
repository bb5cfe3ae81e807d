"""Keeps two deployments of one set apart: a Lease that is renewed while its holder lives."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from deploy.rollout import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

#: After so long without being renewed it is anybody's. The clocks of two machines may differ by less.
_DURATION_S: Final = 60
_RENEW_S: Final = 15
#: Of one call, so that whoever holds it does not wait for a server that hangs until it has run out.
_CALL: Final = "--request-timeout=10s"


class Run(Protocol):
    """Calls kubectl in the namespace and returns what it printed; CommandError if it failed."""

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Its arguments, and what it reads."""


def _utc() -> datetime:
    return datetime.now(UTC)


class Lease:
    """Held from entering to leaving it. A process that is killed holds it for a minute at most."""

    def __init__(
        self, run: Run, name: str, now: Callable[[], datetime] = _utc, renew_s: float = _RENEW_S
    ) -> None:
        self._run = run
        self._name = name
        self._now = now
        self._renew_s = renew_s
        self._ends = self._acquired = now()
        self._left = Event()
        self._renewing = Thread(target=self._renew_until_left, daemon=True)

    def __enter__(self) -> Self:
        """Take it.

        Raises:
            CommandError: who holds it, since when, until when; or the cluster does not answer.
        """
        self._acquired = self._now()
        lease: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
            "spec": {
                "holderIdentity": f"process {os.getpid()} of {socket.gethostname()}",
                "leaseDurationSeconds": _DURATION_S,
                "acquireTime": _micro(self._acquired),
                "renewTime": _micro(self._acquired),
            },
        }
        try:
            self._run("create", "--filename=-", _CALL, stdin=json.dumps(lease))
        except CommandError:
            got = self._run("get", f"lease/{self._name}", "--ignore-not-found", "--output=json", _CALL)
            if not got.strip():
                raise
            held = json.loads(got)
            spec = held.get("spec") or {}
            # Ours if it was made, and only the answer was lost.
            if not _same_holder(spec, lease["spec"]):
                self._refuse_if_held(spec)
                # Refused by the cluster if somebody else has taken it since.
                lease["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"]
                self._run("replace", "--filename=-", _CALL, stdin=json.dumps(lease))
        self._ends = self._acquired + timedelta(seconds=_DURATION_S)
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back, if it is still ours; otherwise it runs out, or is somebody else's."""
        self._left.set()
        self._renewing.join()
        with contextlib.suppress(CommandError):
            self._renew()
            self._run("delete", f"lease/{self._name}", "--ignore-not-found", _CALL)

    def assure(self) -> None:
        """Returns if it is ours, also if it had run out and nobody took it.

        Raises:
            CommandError: somebody else has it, or the cluster does not say who.
        """
        if self._now() >= self._ends:
            try:
                self._renew()
            except CommandError as error:
                raise CommandError(f"nothing keeps others from deploying any longer: {error}") from error

    def _refuse_if_held(self, spec: dict[str, Any]) -> None:
        """Every field of a Lease may be missing: one without a holder, or that never began, is nobody's."""
        holder, acquired = spec.get("holderIdentity"), spec.get("acquireTime")
        renewed = spec.get("renewTime") or acquired
        if not holder or not renewed:
            return
        ends = datetime.fromisoformat(renewed) + timedelta(seconds=spec.get("leaseDurationSeconds") or 0)
        if ends > self._now():
            raise CommandError(
                f"{holder} is deploying since {acquired or renewed}. If it is dead, deploy "
                f"after {ends:%H:%M:%S} UTC; if it lives, it renews lease/{self._name} until it is done"
            )

    def _renew_until_left(self) -> None:
        while not self._left.wait(self._renew_s):
            with contextlib.suppress(CommandError):  # the next time, or `assure` says so
                self._renew()

    def _renew(self) -> None:
        now = self._now()
        patch = [
            {"op": "test", "path": "/spec/acquireTime", "value": _micro(self._acquired)},
            {"op": "replace", "path": "/spec/renewTime", "value": _micro(now)},
        ]
        self._run("patch", f"lease/{self._name}", "--type=json", f"--patch={json.dumps(patch)}", _CALL)
        self._ends = now + timedelta(seconds=_DURATION_S)


def _same_holder(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(field) == other[field] for field in ("holderIdentity", "acquireTime"))


def _micro(moment: datetime) -> str:
    """As Kubernetes writes times of leases."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
