"""What a pod is promised, on this cluster."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images.layout import Layout
from tests.cluster.images import write_image
from tests.cluster.namespace import container, probe, server
from tests.cluster.plan import ClusterError

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.namespace import Namespace

pytestmark = pytest.mark.cluster


def test_its_log_and_its_processes_are_reached(namespace: Namespace) -> None:
    namespace.pod("server", "serve", ":8080")
    answer = namespace.run("server", "get", "http://127.0.0.1:8080/hello")
    assert answer.startswith("server to 127.0.0.1:")
    namespace.soon(lambda: namespace.kubectl("logs", "server") == "GET /hello\n", "the line in its log")


def test_an_image_from_a_file_is_on_every_node(
    cluster: Cluster, namespace: Namespace, tmp_path: Path
) -> None:
    name = f"tlsy.local/{namespace.name}:1"
    write_image(tmp_path / "image.tar", name, Path(cluster.plan.programs) / "pod")
    cluster.import_image(tmp_path / "image.tar")
    for node in cluster.plan.node_names():
        namespace.pod(f"on-{node}", "pause", node=node, image=name, imagePullPolicy="Never")


def test_a_built_image_runs_by_the_name_that_the_layout_has_for_it(
    cluster: Cluster, namespace: Namespace, tmp_path: Path
) -> None:
    name, layout = f"tlsy/{namespace.name}:dev", Layout(tmp_path / "oci")
    write_image(tmp_path / "image.tar", name, Path(cluster.plan.programs) / "pod")
    layout.add(name, tmp_path / "image.tar", datetime(2026, 1, 1, tzinfo=UTC))
    cluster.import_built(layout, name)
    namespace.pod("built", "pause", image=name, imagePullPolicy="Never")


def test_a_service_is_found_by_name_from_another_node(namespace: Namespace) -> None:
    namespace.pod("server", "serve", ":8080", node="node-0")
    namespace.service("server", 8080)
    namespace.pod("client", "pause", node="node-1")
    name = f"server.{namespace.name}.svc.cluster.local"
    address = json.loads(namespace.kubectl("get", "service", "server", "--output=json"))["spec"]["clusterIP"]
    namespace.soon_says(f"{address}\n", "client", "resolve", name)
    namespace.soon_says("server to ", "client", "get", "http://server")
    namespace.soon_says("server to ", "client", "get", f"http://{name}")


def test_a_pod_that_is_not_ready_is_taken_out_of_its_service(namespace: Namespace) -> None:
    namespace.deployment("server", {"containers": [server()]})
    namespace.service("server", 8080)
    (pod,) = namespace.pods("server")
    here = "http://127.0.0.1:8080/ready"

    def endpoints_ready() -> list[bool]:
        slices = json.loads(namespace.kubectl("get", "endpointslices", "--output=json"))["items"]
        return [each["conditions"]["ready"] for part in slices for each in part["endpoints"] or ()]

    namespace.soon(lambda: endpoints_ready() == [True], "an endpoint")
    namespace.run(pod["metadata"]["name"], "post", f"{here}?is=no")
    namespace.soon(lambda: endpoints_ready() == [False], "an endpoint that is not ready")
    namespace.run(pod["metadata"]["name"], "post", f"{here}?is=yes")
    namespace.soon(lambda: endpoints_ready() == [True], "an endpoint that is ready again")


def test_a_pod_that_does_not_live_is_started_again(namespace: Namespace) -> None:
    # More than once, or it is started again before it listens.
    namespace.pod("server", "serve", ":8080", livenessProbe=probe(8080, failures=5))
    namespace.run("server", "post", "http://127.0.0.1:8080/ready?is=no")

    def restarts() -> int:
        pod = json.loads(namespace.kubectl("get", "pod", "server", "--output=json"))
        return int(pod["status"]["containerStatuses"][0]["restartCount"])

    namespace.soon(lambda: restarts() >= 1, "a restart")


def test_a_volume_outlives_its_pod_and_follows_to_another_node(
    cluster: Cluster, namespace: Namespace
) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    namespace.make("PersistentVolumeClaim", "data", claim)
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    kept = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    nobody = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
    for node in cluster.plan.node_names():
        spec = {
            "containers": [container("pause", **kept)],
            "nodeSelector": {"kubernetes.io/hostname": node},
            "securityContext": nobody,
            "volumes": volumes,
        }
        namespace.deployment("store", spec)
        (pod,) = namespace.pods("store")
        if node == "node-0":
            namespace.run(pod["metadata"]["name"], "write", "/data/file", "kept")
        assert namespace.run(pod["metadata"]["name"], "read", "/data/file") == "kept"
    volume = json.loads(namespace.kubectl("get", "pvc", "data", "--output=json"))["spec"]["volumeName"]
    namespace.kubectl("delete", "deployment/store", "pvc/data")
    namespace.soon(
        lambda: volume not in cluster.kubectl("get", "pv", "--output=name"), "the removal of the volume"
    )


def test_a_pod_without_rights_on_a_root_that_is_read_only_cannot_write_to_it(namespace: Namespace) -> None:
    limits = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    namespace.pod("limited", "pause", securityContext=limits)
    with pytest.raises(ClusterError, match="read-only file system"):
        namespace.run("limited", "write", "/file", "text")
