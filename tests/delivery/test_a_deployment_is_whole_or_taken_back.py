"""A set of manifests comes up whole or the set before it is back; what is not in it goes, data stay."""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from deploy.manifests import KEPT_KINDS, LABEL, ManifestSet, RefusedError, identity
from deploy.rollout import CommandError, Deployment, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Document = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]


class FakeCluster:
    """Keeps what it is given. `broken` never comes up, `refused` is not taken, `cut` is not answered."""

    def __init__(self) -> None:
        self.there: dict[str, Document] = {}
        self.kept: dict[str, bytes] = {}
        self.told: list[set[str]] = []
        self.holder = ""

    def try_out(self, documents: Sequence[Document]) -> str:
        if any("refused" in each["metadata"]["name"] for each in documents):
            raise CommandError("admission refused it")
        return ""

    def apply(self, documents: Sequence[Document]) -> None:
        for each in documents:
            if "cut" in each["metadata"]["name"]:
                raise CommandError("connection refused")
            self.there[str(identity(each))] = {**each, "status": {"observedGeneration": 1}}

    def objects(self, documents: Sequence[Document]) -> list[Document]:
        found = [self.there[str(identity(each))] for each in documents]
        return [
            {**each, "spec": {"replicas": int("broken" in each["metadata"]["name"])}}
            if each["kind"] == "Deployment"
            else each
            for each in found
        ]

    def labelled(self, label: str) -> list[Document]:
        return [
            each for each in self.there.values() if each["metadata"].get("labels", {}).get(LABEL) == label
        ]

    def remove(self, found: Sequence[Document]) -> None:
        for each in found:
            del self.there[str(identity(each))]

    def pods(self) -> list[Document]:
        return []

    def last_line(self, pod: str, container: str) -> str:
        return f"the end of {pod}/{container}"

    def remembered(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def remember(self, name: str, packed: bytes, revision: str) -> None:
        self.kept[name] = packed

    def forget(self, name: str) -> None:
        self.kept.pop(name, None)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[FakeCluster]:
        if self.holder:
            raise CommandError(f"{self.holder} is deploying")
        self.holder = "this"
        try:
            yield self
        finally:
            self.holder = ""

    def assure(self) -> None:
        if self.holder != "this":
            raise CommandError(f"{self.holder} is deploying")

    def tell(self) -> str:
        self.told.append(set(self.there))
        return ""


def manifest(kind: str, name: str, **more: Any) -> Document:
    versions = {"Deployment": "apps/v1", "CustomResourceDefinition": "apiextensions.k8s.io/v1"}
    return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": {"name": name}, **more}


def put(cluster: FakeCluster, *documents: Document) -> None:
    clock = itertools.count()
    wanted = ManifestSet("suite", "tlsy", documents)
    Deployment(cluster, 5, lambda: next(clock), lambda: None, lambda text: None).deploy(wanted)


def test_what_is_taken_out_of_the_set_is_gone():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"), manifest("Deployment", "b"), manifest("Service", "b"))
    put(cluster, manifest("Deployment", "a"))
    assert set(cluster.there) == {"deployment/a"}


def test_an_orphan_of_the_set_goes_and_what_is_not_ours_stays():
    cluster = FakeCluster()
    ours, others = {"labels": {LABEL: "tlsy.suite"}}, {"labels": {LABEL: "tlsy.other"}}
    cluster.apply([manifest("ConfigMap", "orphan", metadata={"name": "orphan", **ours})])
    cluster.apply([manifest("ConfigMap", "other", metadata={"name": "other", **others})])
    put(cluster, manifest("Deployment", "a"))
    assert set(cluster.there) == {"deployment/a", "configmap/other"}


def test_a_set_that_does_not_come_up_is_taken_back():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"), manifest("Deployment", "b"))
    before = dict(cluster.there)
    with pytest.raises(NotReadyError, match="deployment/broken: 1 wanted"):
        put(cluster, manifest("Deployment", "a", spec={"paused": True}), manifest("Deployment", "broken"))
    assert cluster.there == before
    put(cluster, manifest("Deployment", "a"))
    assert set(cluster.there) == {"deployment/a"}


@pytest.mark.parametrize("answers", [True, False])
def test_what_keeps_a_set_from_coming_up_is_said_where_the_cluster_knows_it(answers):
    class Crashing(FakeCluster):
        """Has a pod of what is broken."""

        def pods(self) -> list[Document]:
            if not answers:
                raise CommandError("connection refused")
            ended = {"terminated": {"exitCode": 3}}
            status = {"containerStatuses": [{"name": "main", "ready": False, "state": ended}]}
            spec = {"containers": [{"name": "main", "image": "tlsy/x:1"}]}
            return [manifest("Pod", "broken", spec=spec, status=status)]

        def objects(self, documents: Sequence[Document]) -> list[Document]:
            return [{**each, "status": {"phase": "Failed"}} for each in super().objects(documents)]

    said = "container main of pod/broken, image tlsy/x:1: exit code 3; its last line: the end of broken/main"
    with pytest.raises(NotReadyError) as failed:
        put(Crashing(), manifest("Pod", "broken"))
    assert str(failed.value) == f"pod/broken: it failed{f' - {said}' if answers else ''}"


def test_nothing_is_taken_away_before_the_new_set_is_up():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"))
    with pytest.raises(NotReadyError):
        put(cluster, manifest("Deployment", "broken"))
    assert cluster.told == [{"deployment/a", "deployment/broken"}]


def test_a_first_set_that_does_not_come_up_leaves_nothing():
    cluster = FakeCluster()
    with pytest.raises(NotReadyError):
        put(cluster, manifest("ConfigMap", "a"), manifest("Deployment", "broken"))
    assert cluster.there == {}
    assert cluster.remembered("suite") is None


def test_two_do_not_deploy_at_once():
    cluster = FakeCluster()
    cluster.holder = "somebody"
    with pytest.raises(RefusedError, match="somebody is deploying"):
        put(cluster, manifest("PersistentVolumeClaim", "data"), manifest("Deployment", "a"))
    assert cluster.there == {}
    assert cluster.holder == "somebody"


def test_who_is_no_longer_the_only_one_changes_nothing_more():
    class Overtaken(FakeCluster):
        def apply(self, documents: Sequence[Document]) -> None:
            super().apply(documents)
            if self.kept:
                self.holder = "somebody"

    cluster = Overtaken()
    put(cluster, manifest("Deployment", "a"))
    with pytest.raises(CommandError, match="somebody is deploying"):
        put(cluster, manifest("Deployment", "b"))
    assert set(cluster.there) == {"deployment/a", "deployment/b"}
    assert ManifestSet("suite", "tlsy", ()).unpacked(cluster.kept["suite"]).documents[0]["metadata"] == {
        "name": "a"
    }


@pytest.mark.parametrize("name", ["fine", "broken", "refused", "cut"])
def test_whatever_became_of_it_the_next_may_deploy(name):
    cluster = FakeCluster()
    with contextlib.suppress(NotReadyError, RefusedError):
        put(cluster, manifest("Deployment", name))
    assert not cluster.holder


def test_what_works_is_not_taken_away_because_nobody_remembers_it():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"))
    cluster.kept.clear()
    with pytest.raises(CommandError, match="nothing tells what was in it"):
        put(cluster, manifest("Deployment", "broken"))
    assert "deployment/a" in cluster.there
    put(cluster, manifest("Deployment", "b"))
    assert set(cluster.there) == {"deployment/b"}


def test_a_set_that_cannot_be_remembered_is_refused():
    cluster = FakeCluster()
    noise = random.Random(7).randbytes(800_000).hex()
    with pytest.raises(RefusedError, match="too big to be remembered"):
        put(cluster, manifest("ConfigMap", "big", data={"noise": noise}))
    assert cluster.there == {}


def test_a_cluster_that_stops_answering_halfway_is_taken_back_when_it_answers():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"))
    with pytest.raises(NotReadyError, match="connection refused"):
        put(cluster, manifest("ConfigMap", "half"), manifest("Deployment", "cut"))
    assert set(cluster.there) == {"deployment/a"}


def test_a_set_that_cannot_be_put_back_is_not_called_put_back():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"))
    packed = ManifestSet("suite", "tlsy", (manifest("Deployment", "broken"),)).pack()
    cluster.remember("suite", packed, "")
    with pytest.raises(CommandError, match="the set before it did not come up either: deployment/broken"):
        put(cluster, manifest("Deployment", "broken-too"))


def test_what_is_stopped_is_taken_back():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"))

    def stop():
        if "deployment/broken" in cluster.there:
            raise KeyboardInterrupt

    said: list[str] = []
    wanted = ManifestSet("suite", "tlsy", (manifest("Deployment", "broken"),))
    with pytest.raises(KeyboardInterrupt):
        Deployment(cluster, 5, lambda: 0, stop, said.append).deploy(wanted)
    assert set(cluster.there) == {"deployment/a"}
    assert f"deploy: {wanted.revision} did not come up: it was stopped" in said


def test_what_is_stopped_twice_is_not_called_taken_back():
    class Stopped(FakeCluster):
        def apply(self, documents: Sequence[Document]) -> None:
            if documents and self.kept:
                raise KeyboardInterrupt
            super().apply(documents)

    cluster = Stopped()
    put(cluster, manifest("Deployment", "a"))
    with pytest.raises(CommandError, match="stopped before"):
        put(cluster, manifest("Deployment", "b"))


def test_what_is_stopped_when_it_is_deployed_is_not_called_taken_back():
    class Stopped(FakeCluster):
        @contextlib.contextmanager
        def held(self, name: str) -> Iterator[FakeCluster]:
            with super().held(name):
                yield self
            raise KeyboardInterrupt

    cluster = Stopped()
    put(cluster, manifest("Deployment", "a"))
    assert set(cluster.there) == {"deployment/a"}


def test_a_set_that_is_up_and_cannot_be_remembered_is_taken_back():
    class Forgetful(FakeCluster):
        def remember(self, name: str, packed: bytes, revision: str) -> None:
            if self.kept:
                raise CommandError("connection refused")
            super().remember(name, packed, revision)

    cluster = Forgetful()
    put(cluster, manifest("Deployment", "a"))
    with pytest.raises(NotReadyError):
        put(cluster, manifest("Deployment", "b"))
    assert set(cluster.there) == {"deployment/a"}


@pytest.mark.parametrize("stopped_by", [CommandError("connection reset"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [[], [manifest("Deployment", "a")]])
def test_what_is_put_back_is_what_is_remembered(before, stopped_by):
    class Deaf(FakeCluster):
        """Remembers; one answer is lost."""

        deaf = False

        def remember(self, name: str, packed: bytes, revision: str) -> None:
            super().remember(name, packed, revision)
            if self.deaf:
                self.deaf = False
                raise stopped_by

    cluster = Deaf()
    if before:
        put(cluster, *before)
    there, kept = dict(cluster.there), dict(cluster.kept)
    cluster.deaf = True
    with pytest.raises((NotReadyError, KeyboardInterrupt)):
        put(cluster, manifest("Deployment", "b"))
    assert (cluster.there, cluster.kept) == (there, kept)


def test_a_cluster_that_cannot_list_the_set_is_not_changed():
    class Unlisted(FakeCluster):
        def labelled(self, label: str) -> list[Document]:
            if self.kept:
                raise CommandError("a group of its API does not answer")
            return super().labelled(label)

    cluster = Unlisted()
    put(cluster, manifest("Deployment", "a"))
    with pytest.raises(RefusedError, match="does not answer"):
        put(cluster, manifest("Deployment", "b"))
    assert set(cluster.there) == {"deployment/a"}


def test_what_the_cluster_refuses_changes_nothing():
    cluster = FakeCluster()
    put(cluster, manifest("Deployment", "a"))
    with pytest.raises(RefusedError, match="admission refused it"):
        put(cluster, manifest("Deployment", "refused"), manifest("ConfigMap", "new"))
    assert set(cluster.there) == {"deployment/a"}


def test_what_is_kept_of_a_refused_set_is_said():
    cluster = FakeCluster()
    with pytest.raises(RefusedError, match="admission refused it") as refused:
        put(cluster, manifest("PersistentVolumeClaim", "data"), manifest("Deployment", "refused"))
    assert refused.value.applied == list(cluster.there) == ["persistentvolumeclaim/data"]


def test_what_is_kept_is_tried_out_too():
    cluster = FakeCluster()
    with pytest.raises(RefusedError, match="admission refused it") as refused:
        put(cluster, manifest("PersistentVolumeClaim", "data"), manifest("PersistentVolumeClaim", "refused"))
    assert refused.value.applied == list(cluster.there) == []


@pytest.mark.parametrize("kind", sorted(KEPT_KINDS - {"CustomResourceDefinition"}))
def test_what_holds_data_outlives_the_set(kind):
    cluster = FakeCluster()
    put(cluster, manifest(kind, "data"), manifest("Deployment", "a"))
    put(cluster, manifest("Deployment", "a"))
    assert f"{kind.lower()}/data" in cluster.there


UP = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
GOES_ON = {**UP, "availableReplicas": 1}
NO_PROGRESS = {"conditions": [{"type": "Progressing", "status": "False"}]}


@pytest.mark.parametrize(
    ("statuses", "comes_up"),
    [
        # Said of the template before, until the controller has counted what it has made of the present one.
        ([{}, GOES_ON | NO_PROGRESS, GOES_ON, UP], True),
        ([GOES_ON | NO_PROGRESS] * 9, False),
        ([GOES_ON, GOES_ON | NO_PROGRESS], False),
    ],
)
def test_no_progress_ends_what_has_made_progress_before(statuses, comes_up):
    class Telling(FakeCluster):
        """Has a Deployment of these statuses, one after the other."""

        def objects(self, documents: Sequence[Document]) -> list[Document]:
            return [{**each, "spec": {"replicas": 2}, "status": next(told)} for each in documents]

    told = iter(statuses)
    cluster = Telling()
    with contextlib.nullcontext() if comes_up else pytest.raises(NotReadyError, match="no progress"):
        put(cluster, manifest("Deployment", "a"))
    assert bool(cluster.there) == comes_up


def test_a_stateful_set_comes_up_when_the_pod_in_its_way_is_removed():
    class HeldUp(FakeCluster):
        """Has one pod, of a template before, which is not ready."""

        def __init__(self) -> None:
            super().__init__()
            labels = {"controller-revision-hash": "db-before"}
            metadata = {"name": "db-0", "labels": labels, "ownerReferences": [{"uid": "of-db"}]}
            self.there["pod/db-0"] = manifest("Pod", "db-0", metadata=metadata)

        def pods(self) -> list[Document]:
            return [self.there[name] for name in self.there if name == "pod/db-0"]

        def objects(self, documents: Sequence[Document]) -> list[Document]:
            status = {"observedGeneration": 1, "updateRevision": "db-now", **({} if self.pods() else UP)}
            found = {"metadata": {"name": "db", "uid": "of-db"}, "spec": {"replicas": 2}, "status": status}
            return [{**each, **found} for each in documents]

    cluster = HeldUp()
    put(cluster, manifest("StatefulSet", "db"))
    assert set(cluster.there) == {"statefulset/db"}


@pytest.mark.parametrize("seconds", ["-5", "0", "nan", "inf", "soon"])
def test_no_time_to_come_up_is_refused(tmp_path, seconds):
    command = [ROOT / ".ci" / "deploy", tmp_path, "--name", "s", "--namespace", "n", "--timeout", seconds]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, "argument --timeout" in ran.stderr) == (2, True)
