"""A workload that does not come up is told with the container, its image and the cluster's own reason."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.blame import blame

Document = dict[str, Any]

DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": "a"},
    "spec": {"selector": {"matchLabels": {"app": "a"}}},
}
RUNS: Document = {"running": {}}
READY = {"name": "other", "ready": True, "state": RUNS}


def pod(*containers: Document, status: Document | None = None, **metadata: str) -> Document:
    labels = {"app": "a", "pod-template-hash": "1"}
    return {
        "kind": "Pod",
        "metadata": {"name": "a-1", "labels": labels, "creationTimestamp": "2026-01-01", **metadata},
        "spec": {"containers": [{"name": name, "image": "tlsy/a:1"} for name in ("main", "other", "first")]},
        "status": {"containerStatuses": list(containers), **(status or {})},
    }


def container(state: Document, **more: Any) -> Document:
    return {"name": "main", "ready": False, "state": state, **more}


def waiting(reason: str, message: str = "") -> Document:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "", message: str = "") -> Document:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("state", "before", "said"),
    [
        (waiting("ImagePullBackOff", "no\n such image"), {}, "ImagePullBackOff, no such image"),
        (
            waiting("CrashLoopBackOff", "back-off 10s"),
            ended(1, "Error"),
            "CrashLoopBackOff, Error, exit code 1",
        ),
        (waiting("CrashLoopBackOff"), ended(0, "Completed"), "CrashLoopBackOff, Completed, exit code 0"),
        (ended(137, "OOMKilled"), {}, "OOMKilled, exit code 137"),
        (ended(128, "StartError", "/x: not found"), {}, "StartError, exit code 128, /x: not found"),
        (RUNS, ended(2), "exit code 2"),
        (RUNS, {}, "it runs and is not ready"),
        (waiting("ContainerCreating"), {}, "ContainerCreating"),
    ],
)
def test_a_container_that_is_not_ready_says_why(state, before, said):
    blamed = blame(DEPLOYMENT, [pod(READY, container(state, lastState=before))])
    assert blamed
    assert (blamed.pod, blamed.container) == ("a-1", "main")
    assert blamed.text == f"container main of pod/a-1, image tlsy/a:1: {said}"


def test_the_one_that_the_others_wait_for_is_named():
    first = container(ended(1), name="first")
    blamed = blame(
        DEPLOYMENT, [pod(container(waiting("PodInitializing")), status={"initContainerStatuses": [first]})]
    )
    assert blamed
    assert blamed.container == "first"


def test_the_newest_pod_is_the_present_one():
    old = pod(container(ended(1)), name="old")
    new = pod(container(ended(2)), name="new", creationTimestamp="2026-01-02")
    blamed = blame(DEPLOYMENT, [old, new])
    assert blamed
    assert blamed.pod == "new"


def test_one_that_is_about_to_start_is_not_to_blame_where_another_failed():
    new = pod(container(waiting("ContainerCreating")), creationTimestamp="2026-01-02")
    blamed = blame(DEPLOYMENT, [new, pod(container(ended(1)), name="old")])
    assert blamed
    assert blamed.pod == "old"


def test_a_pod_without_a_node_says_why():
    condition = {"type": "PodScheduled", "status": "False", "message": "0/2 nodes"}
    blamed = blame(DEPLOYMENT, [pod(status={"conditions": [condition]})])
    assert blamed
    assert (blamed.container, blamed.text) == ("", "pod/a-1 has no node: 0/2 nodes")


@pytest.mark.parametrize(
    "found",
    [
        pod(READY),
        pod(container(ended(0))),
        pod(container({})),
        {**pod(container(ended(1))), "metadata": {"name": "b", "labels": {"app": "b"}}},
        {
            **pod(container(ended(1))),
            "metadata": {"name": "a", "labels": {"app": "a"}, "deletionTimestamp": "1"},
        },
    ],
)
def test_who_is_well_ends_or_is_somebody_elses_is_not_to_blame(found):
    assert blame(DEPLOYMENT, [found]) is None


def test_what_has_no_pods_blames_none():
    definition = {"kind": "CustomResourceDefinition", "metadata": {"name": "a"}, "spec": {}}
    assert blame(definition, [pod(container(ended(1)))]) is None
