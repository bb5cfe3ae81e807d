"""NetworkPolicies are enforced, whichever node the two ends are on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.namespace import Namespace

pytestmark = pytest.mark.cluster

GET: Final = ("get", "http://server")
NODES: Final = ("node-0", "node-1")


def only_from(app: str) -> dict[str, Any]:
    peers = [{"from": [{"podSelector": {"matchLabels": {"app": app}}}]}]
    return {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"], "ingress": peers}


@pytest.fixture
def served(namespace: Namespace) -> Namespace:
    """A server, and a friend and a stranger of it on each node, who all get an answer."""
    namespace.pod("server", "serve", ":8080", node="node-0")
    namespace.service("server", 8080)
    for node in NODES:
        for name in ("friend", "stranger"):
            namespace.pod(f"{name}-{node}", "pause", node=node)
            namespace.kubectl("label", f"pod/{name}-{node}", f"app={name}", "--overwrite")
            namespace.soon_succeeds(f"{name}-{node}", *GET)
    return namespace


def test_who_is_not_named_is_refused_and_let_in_again_without_the_policy(served: Namespace) -> None:
    served.make("NetworkPolicy", "server", only_from("friend"), api="networking.k8s.io/v1")
    for node in NODES:
        served.soon_fails(f"stranger-{node}", *GET)
        served.soon_succeeds(f"friend-{node}", *GET)
    served.kubectl("delete", "networkpolicy/server")
    served.soon_succeeds("stranger-node-1", *GET)


def test_who_may_only_ask_for_names_reaches_nothing_else(served: Namespace, cluster: Cluster) -> None:
    names = {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}, "namespaceSelector": {}}
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    policy = {
        "podSelector": {"matchLabels": {"app": "stranger"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [names], "ports": ports}],
    }
    served.make("NetworkPolicy", "stranger", policy, api="networking.k8s.io/v1")
    served.soon_fails("stranger-node-1", *GET)
    served.soon_succeeds("stranger-node-1", "resolve", "server")
    served.soon_succeeds("friend-node-1", *GET)


def test_probes_of_the_node_pass_where_no_pod_does(served: Namespace) -> None:
    nobody = {"podSelector": {}, "policyTypes": ["Ingress"]}
    served.make("NetworkPolicy", "nobody", nobody, api="networking.k8s.io/v1")
    served.soon_fails("friend-node-1", *GET)
    served.pod("probed", "serve", ":8080")
