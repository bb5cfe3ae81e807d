"""What `.ci/deploy` promises, on this cluster: all of a set or the set before it, and nothing besides."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.cluster.namespace import container, server
from tests.cluster.plan import POD_IMAGE

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.namespace import Namespace

pytestmark = pytest.mark.cluster

_DEPLOY: Final = Path(__file__).parents[2] / ".ci" / "deploy"
_SAID: Final = "said.txt"
_DEPLOYED, _ROLLED_BACK, _REFUSED = 0, 1, 2


@pytest.fixture(autouse=True)
def every_group_answers(cluster: Cluster) -> None:
    """A deployment asks for objects of every kind, and the kinds of metrics are the last that the API has."""
    metrics = "apiservice/v1beta1.metrics.k8s.io"
    cluster.kubectl("wait", metrics, "--for=condition=Available", "--timeout=120s", timeout_s=130)


def workload(name: str, **more: Any) -> dict[str, Any]:
    """A Deployment of one pod, ready when it answers."""
    spec = {"terminationGracePeriodSeconds": 1, "containers": [server(**more)]}
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }


def stateful(name: str, **more: Any) -> dict[str, Any]:
    """The same as a StatefulSet."""
    return {**workload(name, **more), "kind": "StatefulSet"}


def claim(name: str) -> dict[str, Any]:
    """A volume claim, which holds data."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def put(namespace: Namespace, folder: Path, *documents: dict[str, Any], timeout_s: int = 60) -> int:
    """Deploys these as a set; the exit code."""
    deployment = begin(namespace, folder, *documents, timeout_s=timeout_s)
    try:
        return deployment.wait(300)
    finally:
        end(deployment)


def begin(
    namespace: Namespace, folder: Path, *documents: dict[str, Any], timeout_s: int = 60
) -> subprocess.Popen[bytes]:
    """The same, not waited for."""
    (folder / "set.json").write_text(json.dumps({"kind": "List", "items": documents}))
    with (folder / _SAID).open("w") as said:
        return subprocess.Popen(
            [_DEPLOY, folder, "--name", "set", "--namespace", namespace.name, "--timeout", str(timeout_s)],
            env=namespace.cluster.environment(),
            stdout=subprocess.DEVNULL,
            stderr=said,
        )


def end(deployment: subprocess.Popen[bytes]) -> None:
    """Kills it, if it has not ended."""
    deployment.kill()
    deployment.wait(20)


def names(namespace: Namespace, kinds: str) -> list[str]:
    """What is there of these kinds, besides what a deployment remembers and every namespace has."""
    found = namespace.kubectl("get", kinds, "--output=name").split()
    return sorted(name for name in found if not name.endswith(("/set-deployed", "/kube-root-ca.crt")))


def test_a_workload_taken_out_is_gone_with_its_pods_and_its_data_stay(
    namespace: Namespace, tmp_path: Path
) -> None:
    assert put(namespace, tmp_path, workload("one"), workload("other"), claim("data")) == _DEPLOYED
    assert len(namespace.pods("other")) == 1
    assert put(namespace, tmp_path, workload("one")) == _DEPLOYED
    assert names(namespace, "deployments,persistentvolumeclaims") == [
        "deployment.apps/one",
        "persistentvolumeclaim/data",
    ]
    assert namespace.pods("other") == []


def test_a_bare_pod_and_a_service_taken_out_are_gone_and_what_a_service_has_stays(
    namespace: Namespace, tmp_path: Path
) -> None:
    core: dict[str, Any] = {"apiVersion": "v1", "metadata": {"name": "one"}}
    spec = {"selector": {"app": "one"}, "ports": [{"port": 80, "targetPort": 8080}]}
    service = {**core, "kind": "Service", "spec": spec}
    bare = {**core, "kind": "Pod", "spec": {"terminationGracePeriodSeconds": 1, "containers": [server()]}}
    assert put(namespace, tmp_path, workload("one"), service, bare) == _DEPLOYED
    namespace.wait("wait", "pod/one", "--for=condition=Ready")
    made = ("get", "endpoints,endpointslices", "--output=jsonpath={.items[*].metadata.uid}")
    namespace.soon(lambda: len(namespace.kubectl(*made).split()) == 2, "endpoints of both kinds")
    before = namespace.kubectl(*made)
    assert put(namespace, tmp_path, workload("one"), service) == _DEPLOYED
    assert "pod/one" not in names(namespace, "pods")
    assert namespace.kubectl(*made) == before
    assert put(namespace, tmp_path, workload("one")) == _DEPLOYED
    assert names(namespace, "services") == []


def test_an_orphan_of_the_set_is_removed_and_a_strangers_object_is_not(
    namespace: Namespace, tmp_path: Path
) -> None:
    for name in ("orphan", "strangers"):
        namespace.kubectl("create", "configmap", name)
    namespace.kubectl("label", "configmap/orphan", f"tlsy.dev/set={namespace.name}.set")
    assert put(namespace, tmp_path, workload("one")) == _DEPLOYED
    assert names(namespace, "configmaps") == ["configmap/strangers"]


def test_a_set_that_does_not_come_up_is_taken_back(namespace: Namespace, tmp_path: Path) -> None:
    assert put(namespace, tmp_path, workload("one")) == _DEPLOYED
    (before,) = namespace.pods("one")
    crashing = workload("one", command=["/nothing"])
    assert put(namespace, tmp_path, crashing, workload("new"), timeout_s=30) == _ROLLED_BACK
    said = (
        rf"deployment/one: .* container main of pod/one-\S+, image {POD_IMAGE}: .*exit code 128, .*/nothing"
    )
    assert re.search(said, (tmp_path / _SAID).read_text())
    assert names(namespace, "deployments") == ["deployment.apps/one"]
    assert [pod["metadata"]["uid"] for pod in namespace.pods("one")] == [before["metadata"]["uid"]]


def test_a_stateful_set_that_does_not_come_up_is_taken_back_and_then_mended(
    namespace: Namespace, tmp_path: Path
) -> None:
    assert put(namespace, tmp_path, stateful("db")) == _DEPLOYED
    crashing = stateful("db", command=["/nothing"])
    assert put(namespace, tmp_path, crashing, timeout_s=20) == _ROLLED_BACK
    command = ("get", "pods", "--output=jsonpath={.items[*].spec.containers[0].command}")
    assert namespace.kubectl(*command) == ""
    # What a deployment that was killed leaves.
    namespace.cluster.apply(json.dumps(crashing), namespace=namespace.name)
    namespace.soon(lambda: "/nothing" in namespace.kubectl(*command), "a broken pod")
    mended = stateful("db", env=[{"name": "MENDED", "value": "yes"}])
    assert put(namespace, tmp_path, mended) == _DEPLOYED


def test_what_the_cluster_refuses_changes_nothing(namespace: Namespace, tmp_path: Path) -> None:
    broken = workload("one")
    del broken["spec"]["selector"]
    assert put(namespace, tmp_path, workload("new"), broken) == _REFUSED
    assert names(namespace, "deployments,secrets") == []


def test_a_job_that_fails_takes_its_set_back(namespace: Namespace, tmp_path: Path) -> None:
    pod = {"restartPolicy": "Never", "containers": [container("get", "http://127.0.0.1:1")]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "migrate"}}
    failing = {**job, "spec": {"backoffLimit": 0, "template": {"spec": pod}}}
    assert put(namespace, tmp_path, failing, workload("one")) == _ROLLED_BACK
    assert "exit code 1; its last line: " in (tmp_path / _SAID).read_text()
    assert names(namespace, "jobs,deployments,pods") == []


def test_a_killed_deployment_keeps_others_away_for_a_minute_at_most(
    namespace: Namespace, tmp_path: Path
) -> None:
    killed = begin(namespace, tmp_path, workload("one", command=["/nothing"]))
    try:
        namespace.soon(lambda: names(namespace, "deployments") != [], "something of the set")
    finally:
        end(killed)
    assert put(namespace, tmp_path, workload("one")) == _REFUSED
    (lease,) = json.loads(namespace.kubectl("get", "leases", "--output=json"))["items"]
    assert lease["spec"]["leaseDurationSeconds"] <= 60
    a_minute_later = {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
    namespace.kubectl("patch", "lease/set-deploy", "--type=merge", f"--patch={json.dumps(a_minute_later)}")
    assert put(namespace, tmp_path, workload("one")) == _DEPLOYED
    assert names(namespace, "leases") == []
