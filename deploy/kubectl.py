"""A cluster by kubectl: server-side apply, one field manager, everything with a deadline."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from deploy.lease import Lease
from deploy.manifests import KEPT_KINDS, LABEL
from deploy.rollout import CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.manifests import Document

_MANAGER: Final = "tlsy-deploy"
#: Made by a controller for a Service, with its labels and, unlike all else that is made so, without an owner.
_MADE_BY_CONTROLLERS: Final = frozenset({"Endpoints"})
#: The type of the Secret in which a set is remembered.
_DEPLOYED_SET: Final = "tlsy.dev/deployed-set"
_DIFFERENT: Final = 1
#: In characters; more of a log is in the log.
_LONGEST_LINE: Final = 300
_LOG: Final = re.compile(r"[IWEF]\d{4} ")


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The cluster of the current context, or of KUBECONFIG."""

    program: str
    namespace: str
    timeout_s: float

    def try_out(self, documents: Sequence[Document]) -> str:
        """Validated by the API server, admission included. Values of Secrets are masked by kubectl."""
        self._apply(documents, "--dry-run=server")
        ran = self._run("diff", *self._how(), "--filename=-", stdin=_list(documents))
        if ran.returncode > _DIFFERENT:
            raise CommandError(_said(ran.stderr))
        return ran.stdout

    def apply(self, documents: Sequence[Document]) -> None:
        """The set is the truth: fields that somebody else has set are taken over."""
        self._apply(documents)

    def objects(self, documents: Sequence[Document]) -> list[Document]:
        """Read in one call."""
        arguments = (
            "get",
            "--namespace",
            self.namespace,
            "--ignore-not-found",
            "--output=json",
            "--filename=-",
        )
        return _items(self._succeed(*arguments, stdin=_list(documents)))

    def labelled(self, label: str) -> list[Document]:
        """Of every kind that can be listed and removed."""
        found = []
        for scope in ("true", "false"):
            listed = self._succeed(
                "api-resources", "--verbs=list,delete", f"--namespaced={scope}", "--output=name"
            )
            where = ("--namespace", self.namespace) if scope == "true" else ()
            kinds = ",".join(listed.split())
            found += _items(
                self._succeed("get", kinds, *where, f"--selector={LABEL}={label}", "--output=json")
            )
        return [
            each
            for each in found
            if not each["metadata"].get("ownerReferences")
            and each["kind"] not in KEPT_KINDS | _MADE_BY_CONTROLLERS
        ]

    def pods(self) -> list[Document]:
        """Also those that are about to end."""
        return _items(self._succeed("get", "pods", "--namespace", self.namespace, "--output=json"))

    def last_line(self, pod: str, container: str) -> str:
        """Of its last run, if it ever ran."""
        how = (f"--container={container}", "--tail=1", "--request-timeout=10s")
        ran = self._run("logs", pod, "--namespace", self.namespace, *how)
        return ran.stdout.strip()[:_LONGEST_LINE]

    def remove(self, found: Sequence[Document]) -> None:
        """In the foreground: an object is gone after what it owns."""
        self._succeed(
            "delete",
            "--namespace",
            self.namespace,
            "--cascade=foreground",
            "--ignore-not-found",
            f"--timeout={self.timeout_s:.0f}s",
            "--filename=-",
            stdin=_list(found),
        )

    def remembered(self, name: str) -> bytes | None:
        """From a Secret: a set may hold Secrets."""
        got = self._succeed(
            "get",
            f"secret/{name}-deployed",
            "--namespace",
            self.namespace,
            "--ignore-not-found",
            "--output=json",
        )
        if not got.strip():
            return None
        secret = json.loads(got)
        if secret.get("type") != _DEPLOYED_SET:
            raise CommandError(
                f"secret/{name}-deployed is there and of no deployment: name the set otherwise"
            )
        return base64.b64decode(secret["data"]["set"])

    def remember(self, name: str, packed: bytes, revision: str) -> None:
        """In one write."""
        document = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": _DEPLOYED_SET,
            "metadata": {"name": f"{name}-deployed", "annotations": {"tlsy.dev/revision": revision}},
            "data": {"set": base64.b64encode(packed).decode()},
        }
        self._apply([document])

    def forget(self, name: str) -> None:
        """Whether or not something was remembered."""
        self._succeed(
            "delete", f"secret/{name}-deployed", "--namespace", self.namespace, "--ignore-not-found"
        )

    def held(self, name: str) -> Lease:
        """By a Lease, whose name says of which set it is."""

        def run(*arguments: str, stdin: str = "") -> str:
            return self._succeed(*arguments, "--namespace", self.namespace, stdin=stdin)

        return Lease(run, f"{name}-deploy")

    def tell(self) -> str:
        """Pods and warnings."""
        pods = self._run("get", "pods", "--namespace", self.namespace, "--output=wide")
        events = self._run(
            "get",
            "events",
            "--namespace",
            self.namespace,
            "--field-selector=type=Warning",
            "--sort-by=.lastTimestamp",
        )
        return f"{pods.stdout}{events.stdout}".strip()

    def _how(self) -> tuple[str, ...]:
        return (
            "--server-side",
            "--force-conflicts",
            f"--field-manager={_MANAGER}",
            "--namespace",
            self.namespace,
        )

    def _apply(self, documents: Sequence[Document], *more: str) -> None:
        self._succeed("apply", *self._how(), *more, "--filename=-", stdin=_list(documents))

    def _succeed(self, *arguments: str, stdin: str = "") -> str:
        ran = self._run(*arguments, stdin=stdin)
        if ran.returncode:
            raise CommandError(_said(ran.stderr) or f"kubectl {arguments[0]} failed")
        return ran.stdout

    def _run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - the program that the caller named
                [self.program, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=self.timeout_s + 30,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"kubectl {arguments[0]} did not end in {error.timeout:.0f} s") from error


def _said(stderr: str) -> str:
    """Each line once, without kubectl's own log."""
    return "\n".join(dict.fromkeys(line for line in stderr.splitlines() if not _LOG.match(line)))


def _list(documents: Sequence[Document]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})


def _items(text: str) -> list[Document]:
    """Of what `get` printed: a list, one object, or nothing."""
    if not text.strip():
        return []
    got: dict[str, Any] = json.loads(text)
    return list(got["items"]) if got["kind"] == "List" else [got]
