"""When a workload is up, when it is not to be waited for, and which pod keeps it from coming up."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.readiness import in_the_way, state_of

Document = dict[str, Any]

STATUS = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
NO_PROGRESS = {"conditions": [{"type": "Progressing", "status": "False"}]}
OF_NODES = {
    "observedGeneration": 2,
    "desiredNumberScheduled": 3,
    "updatedNumberScheduled": 3,
    "numberAvailable": 3,
}


@pytest.mark.parametrize(
    ("kind", "status", "state"),
    [
        ("Deployment", STATUS, "ready"),
        ("Deployment", {**STATUS, "observedGeneration": 1}, "unseen"),
        ("Deployment", {**STATUS, "replicas": 3}, "waiting"),
        ("Deployment", {**STATUS, "availableReplicas": 1}, "waiting"),
        ("Deployment", STATUS | NO_PROGRESS, "stalled"),
        ("StatefulSet", {**STATUS, "updatedReplicas": 1}, "waiting"),
        ("DaemonSet", OF_NODES, "ready"),
        ("DaemonSet", {**OF_NODES, "numberAvailable": 2}, "waiting"),
        ("ReplicaSet", {"observedGeneration": 2, "replicas": 2, "availableReplicas": 2}, "ready"),
        ("ReplicaSet", {"observedGeneration": 2, "replicas": 2, "availableReplicas": 1}, "waiting"),
        ("Pod", {}, "waiting"),
        ("Pod", {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}, "waiting"),
        ("Pod", {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}, "ready"),
        ("Pod", {"phase": "Succeeded"}, "ready"),
        ("Pod", {"phase": "Failed"}, "failed"),
        ("Job", {}, "waiting"),
        ("Job", {"conditions": [{"type": "Complete", "status": "True"}]}, "ready"),
        ("Job", {"conditions": [{"type": "Failed", "status": "True"}]}, "failed"),
        ("ConfigMap", {}, "ready"),
    ],
)
def test_when_a_workload_is_ready(kind, status, state):
    found = {"kind": kind, "metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status}
    assert state_of(found).state == state


STATEFUL_SET: Document = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "db", "uid": "db-uid", "generation": 3},
    "spec": {"replicas": 2, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
    "status": {"observedGeneration": 3, "currentRevision": "db-1", "updateRevision": "db-3"},
}


def pod(name: str, revision: str = "", *, ready: bool = True, owner: str = "db-uid", **more: Any) -> Document:
    metadata = {
        "name": name,
        "ownerReferences": [{"uid": owner}],
        "labels": {"controller-revision-hash": revision},
    }
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, **more}, "status": status}


ENDS: Document = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("pods", "removed"),
    [
        ([pod("db-0", "db-1"), pod("db-1", "db-1"), pod("db-2", "db-2", ready=False)], "db-2"),
        # A revision that never came up may be why the others are not ready.
        ([pod("db-0", "db-3", ready=False), pod("db-1", "db-2", ready=False)], "db-1"),
        ([pod("db-10", "db-1", ready=False), pod("db-9", "db-1", ready=False)], "db-9"),
        # It goes on by itself.
        ([pod("db-0", "db-1"), pod("db-1", "db-1"), pod("db-2", "db-2")], None),
        ([pod("db-1", "db-1", ready=False), pod("db-2", "db-3", ready=False)], None),
        ([pod("db-1", "db-1", ready=False), pod("db-2", "db-1", **ENDS)], None),
        ([pod("db-2", "db-2", ready=False, **ENDS)], None),
        ([pod("db-2", "db-2", ready=False, owner="another")], None),
    ],
)
def test_a_pod_of_an_earlier_template_that_holds_up_the_present_one_is_removed(pods, removed):
    found = in_the_way(STATEFUL_SET, pods)
    assert (found and found["metadata"]["name"]) == removed


@pytest.mark.parametrize(
    "more",
    [
        {"status": {**STATEFUL_SET["status"], "observedGeneration": 2}},
        {"spec": {"updateStrategy": {"type": "OnDelete"}}},
        {"spec": {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}},
    ],
)
def test_a_pod_is_not_removed_whose_template_need_not_change(more):
    assert in_the_way({**STATEFUL_SET, **more}, [pod("db-2", "db-2", ready=False)]) is None
