"""Puts a set of manifests into a cluster as one: it comes up whole, or the set before it is put back.

Nothing is taken away before the new set is up. Then everything goes that has the set's label and is not in
it: what the set before had, and what nobody remembers. What a deployment that was killed has left, the next
one puts right.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from deploy.blame import blame
from deploy.manifests import ManifestSet, RefusedError, identity
from deploy.readiness import in_the_way, state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from deploy.manifests import Document, Identity
    from deploy.readiness import State


#: A Secret holds 1 MiB, of which base64 takes a quarter.
_MAX_PACKED_BYTES: Final = 750_000


class CommandError(Exception):
    """The cluster refused a command, or did not answer."""


class NotReadyError(Exception):
    """The set did not come up."""


class Hold(Protocol):
    """That nobody else deploys the set."""

    def assure(self) -> None:
        """CommandError if that does not hold any longer."""


class Cluster(Protocol):
    """What a deployment asks of a cluster. Every method raises CommandError if that cannot be done."""

    def try_out(self, documents: Sequence[Document]) -> str:
        """Apply without effect; returns what would change, for people."""

    def apply(self, documents: Sequence[Document]) -> None:
        """Make or change these objects."""

    def objects(self, documents: Sequence[Document]) -> list[Document]:
        """These objects as they are now; those that are there."""

    def labelled(self, label: str) -> list[Document]:
        """Every object of the set, of whatever kind, that no other object owns."""

    def pods(self) -> list[Document]:
        """Every pod of the namespace."""

    def last_line(self, pod: str, container: str) -> str:
        """The last that a container wrote; nothing if it never ran."""

    def remove(self, found: Sequence[Document]) -> None:
        """Remove these objects and what they own, and wait until they are gone."""

    def remembered(self, name: str) -> bytes | None:
        """What was last remembered under this name."""

    def remember(self, name: str, packed: bytes, revision: str) -> None:
        """Keep this in the cluster."""

    def forget(self, name: str) -> None:
        """Keep nothing under this name."""

    def held(self, name: str) -> AbstractContextManager[Hold]:
        """Keep others from deploying a set of this name meanwhile; entering it says who does so already."""

    def tell(self) -> str:
        """What helps to see why something does not come up."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment: how long a set may take to come up, and what waits and speaks."""

    cluster: Cluster
    timeout_s: float
    now: Callable[[], float]
    pause: Callable[[], None]
    say: Callable[[str], None]

    def deploy(self, wanted: ManifestSet) -> None:
        """Put the set into the cluster.

        Raises:
            RefusedError: the cluster would not take it, or somebody else deploys.
            NotReadyError: it did not come up. The set before it is back, or nothing where there was none.
            CommandError: nor could the set before it be put back. The cluster is between two: deploy again.
        """
        packed_wanted = wanted.pack()
        if len(packed_wanted) > _MAX_PACKED_BYTES:
            raise RefusedError([f"the set is too big to be remembered: {len(packed_wanted)} bytes packed"])
        deployed = False
        try:
            with ExitStack() as stack:
                try:
                    hold = stack.enter_context(self.cluster.held(wanted.name))
                except CommandError as error:
                    raise RefusedError([str(error)]) from error
                self._deploy_alone(wanted, packed_wanted, hold)
                deployed = True
        except KeyboardInterrupt:
            if not deployed:  # otherwise it is too late: at worst the Lease has to run out
                raise

    def _deploy_alone(self, wanted: ManifestSet, packed_wanted: bytes, hold: Hold) -> None:
        applied: list[Document] = []
        try:
            packed = self.cluster.remembered(wanted.name)
            # Also where something is remembered: a cluster that cannot list cannot go back either.
            there = self.cluster.labelled(wanted.label)
            forgotten = packed is None and bool(there)
            if wanted.kept:
                self.say(self.cluster.try_out(wanted.kept))
                hold.assure()
                applied = wanted.kept
                self.cluster.apply(applied)
                self._come_up(applied, hold)
            if wanted.replaceable:  # not before: it may be of a kind that was just defined
                self.say(self.cluster.try_out(wanted.replaceable))
        except (CommandError, NotReadyError) as error:
            raise RefusedError([str(error)], applied) from error
        before = wanted.unpacked(packed) if packed else ManifestSet(wanted.name, wanted.namespace, ())
        try:
            self._put(wanted, hold)
            hold.assure()
            self.cluster.remember(wanted.name, packed_wanted, wanted.revision)
        except BaseException as error:  # also Ctrl-C: what was begun is taken back
            self.say(f"deploy: {wanted.revision} did not come up: {str(error) or 'it was stopped'}")
            self.say(self.cluster.tell())
            if forgotten:  # to go back to nothing would take away what works
                raise CommandError(f"{error}; there is a set, and nothing tells what was in it") from error
            self._put_back(before, packed, hold)
            was = f"{before.revision} is back" if packed else "there was none before; nothing is left"
            self.say(f"deploy: {was}")
            if isinstance(error, CommandError):
                raise NotReadyError(str(error)) from error
            raise

    def _put_back(self, before: ManifestSet, packed: bytes | None, hold: Hold) -> None:
        try:
            self._put(before, hold)
            # What failed may have been remembered, and only the answer was lost.
            if self.cluster.remembered(before.name) != packed:
                hold.assure()
                if packed is None:
                    self.cluster.forget(before.name)
                else:
                    self.cluster.remember(before.name, packed, before.revision)
        except NotReadyError as error:
            raise CommandError(f"the set before it did not come up either: {error}") from error
        except KeyboardInterrupt as error:
            raise CommandError("it was stopped before the set before it was back") from error

    def _put(self, wanted: ManifestSet, hold: Hold) -> None:
        """Apply, wait, and remove what is no longer of the set."""
        hold.assure()
        if wanted.replaceable:
            self.cluster.apply(wanted.replaceable)
            self._come_up(wanted.replaceable, hold)
        members = {_place(each, wanted.namespace) for each in wanted.replaceable}
        superfluous = [
            each
            for each in self.cluster.labelled(wanted.label)
            if _place(each, wanted.namespace) not in members
        ]
        if superfluous:
            hold.assure()
            self.say(f"deploy: removing {', '.join(str(identity(each)) for each in superfluous)}")
            self.cluster.remove(superfluous)

    def _come_up(self, documents: Sequence[Document], hold: Hold) -> None:
        deadline = self.now() + self.timeout_s
        went_on: set[Identity] = set()
        while True:
            found = self.cluster.objects(documents)
            states = [(each, state_of(each)) for each in found]
            went_on |= {identity(each) for each, state in states if state.state == "waiting"}
            failed = [
                (each, state)
                for each, state in states
                if state.state == "failed" or (state.state == "stalled" and identity(each) in went_on)
            ]
            waiting = [(each, state) for each, state in states if state.state != "ready"]
            if failed:
                raise NotReadyError(self._reasons(failed))
            if not waiting and len(found) == len(documents):
                return
            if self.now() >= deadline:
                raise NotReadyError(self._reasons(waiting) or "some of it is gone again")
            self._make_way([each for each, state in states if state.state == "waiting"], hold)
            self.pause()

    def _reasons(self, found: Sequence[tuple[Document, State]]) -> str:
        return "; ".join(f"{identity(each)}: {state.why}{self._blamed(each)}" for each, state in found)

    def _blamed(self, workload: Document) -> str:
        """Nothing where the cluster cannot say it: that it did not come up is known without."""
        with suppress(CommandError):
            if blamed := blame(workload, self.cluster.pods()):
                line = blamed.container and self.cluster.last_line(blamed.pod, blamed.container)
                return f" - {blamed.text}" + (f"; its last line: {line}" if line else "")
        return ""

    def _make_way(self, waiting: Sequence[Document], hold: Hold) -> None:
        for each in waiting:
            if each["kind"] == "StatefulSet" and (pod := in_the_way(each, self.cluster.pods())):
                hold.assure()
                self.say(f"deploy: removing {identity(pod)}, not ready and of an earlier {identity(each)}")
                self.cluster.remove([pod])


def _place(document: Document, namespace: str) -> Identity:
    """Where an object is. A manifest need not say its namespace; the cluster does, unless it has none."""
    it = identity(document)
    return type(it)(it.group, it.kind, "" if it.namespace == namespace else it.namespace, it.name)
