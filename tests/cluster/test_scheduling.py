"""Two nodes: pods are spread over them, leave one that is drained, and grow in number under load."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import pytest

from tests.cluster.namespace import container, server
from tests.cluster.plan import ClusterError

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.namespace import Namespace

pytestmark = pytest.mark.cluster


def nodes_of(namespace: Namespace, app: str) -> list[str]:
    return sorted(pod["spec"].get("nodeName", "") for pod in namespace.pods(app))


def test_pods_are_spread_over_zones(namespace: Namespace) -> None:
    apart = {
        "maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "server"}},
    }
    namespace.deployment(
        "server", {"containers": [server()], "topologySpreadConstraints": [apart]}, replicas=4
    )
    assert nodes_of(namespace, "server") == ["node-0", "node-0", "node-1", "node-1"]


def test_a_drained_node_is_left_no_faster_than_a_budget_allows(
    cluster: Cluster, namespace: Namespace
) -> None:
    def available() -> int:
        deployment = cluster.get(f"/apis/apps/v1/namespaces/{namespace.name}/deployments/server")
        return int(deployment["status"].get("availableReplicas", 0))

    ours = ("--pod-selector=app=server", "--ignore-daemonsets", "--timeout=60s")
    try:
        cluster.kubectl("cordon", "node-0")
        namespace.deployment("server", {"containers": [server()]}, replicas=2)
        cluster.kubectl("uncordon", "node-0")
        assert nodes_of(namespace, "server") == ["node-1", "node-1"]
        budget = {"minAvailable": 1, "selector": {"matchLabels": {"app": "server"}}}
        namespace.make("PodDisruptionBudget", "server", budget, api="policy/v1")
        with ThreadPoolExecutor() as aside:
            drain = aside.submit(cluster.kubectl, "drain", "node-1", *ours, timeout_s=90)
            seen = {available()}
            while wait((drain,), timeout=0.05).not_done:
                seen.add(available())
        drain.result()
        assert seen == {1, 2}
        namespace.soon(
            lambda: nodes_of(namespace, "server") == ["node-0", "node-0"], "pods on the other node"
        )
        namespace.wait("rollout", "status", "deployment/server")
    finally:
        cluster.kubectl("uncordon", "node-0", "node-1")


def test_an_autoscaler_adds_pods_under_load(namespace: Namespace) -> None:
    busy = container("burn", resources={"requests": {"cpu": "20m"}, "limits": {"cpu": "100m"}})
    namespace.deployment("busy", {"containers": [busy]})
    target = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    scaling = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "busy"},
        "minReplicas": 1,
        "maxReplicas": 2,
        "metrics": [target],
    }
    namespace.make("HorizontalPodAutoscaler", "busy", scaling, api="autoscaling/v2")
    namespace.soon(lambda: len(namespace.pods("busy")) == 2, "a second pod", timeout_s=120)

    def measured() -> set[str]:
        with contextlib.suppress(ClusterError):  # for a moment it may have none
            used = json.loads(namespace.cluster.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"))
            return {node["metadata"]["name"] for node in used["items"]}
        return set()

    nodes = set(namespace.cluster.plan.node_names())
    namespace.soon(lambda: measured() == nodes, "figures of both nodes")
