"""Whether an object of the cluster has become what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.manifests import Document

#: A label of the pods of a StatefulSet.
_REVISION: Final = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class State:
    """`failed` will not become ready by waiting.

    Nor will `stalled`, if it was `waiting` before: in the first moment that its controller has looked at the
    present template, it may still be said of the one before.
    """

    state: Literal["ready", "unseen", "waiting", "stalled", "failed"]
    why: str = ""


_READY = State("ready")


def state_of(found: Document) -> State:
    """Of workloads; everything else is ready when it is there."""
    match found["kind"]:
        case "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet":
            return _workload(found)
        case "Job":
            return _job(found)
        case "Pod":
            return _pod(found)
        case "CustomResourceDefinition":
            established = _condition(found, "Established") == "True"
            return _READY if established else State("waiting", "not established")
    return _READY


def _workload(found: Document) -> State:
    status = found.get("status", {})
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 1):
        return State("unseen", "nobody has looked at it yet")
    if _condition(found, "Progressing") == "False":
        return State("stalled", "it made no progress until its deadline")
    if found["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        updated, available, all_of_it = (
            status.get("updatedNumberScheduled", 0),
            status.get("numberAvailable", 0),
            wanted,
        )
    else:
        wanted = found["spec"].get("replicas", 1)
        updated, available, all_of_it = (
            # A ReplicaSet replaces nothing.
            status.get("replicas" if found["kind"] == "ReplicaSet" else "updatedReplicas", 0),
            status.get("availableReplicas", 0),
            status.get("replicas", 0),
        )
    if updated < wanted or available < wanted or all_of_it != wanted:
        return State(
            "waiting", f"{wanted} wanted, {updated} updated, {available} available, {all_of_it} in all"
        )
    return _READY


def in_the_way(stateful_set: Document, pods: Sequence[Document]) -> Document | None:
    """The pod that has to be removed for a StatefulSet to go on, if there is one.

    Its controller replaces nothing before every pod is ready. One that is not because of an earlier template
    never gets the present one, which may be what mends it.
    """
    metadata, status = stateful_set["metadata"], stateful_set.get("status", {})
    strategy = stateful_set["spec"].get("updateStrategy", {})
    if status.get("observedGeneration", 0) < metadata.get("generation", 1):
        return None  # which revision is the present one is not known yet
    if strategy.get("type") == "OnDelete" or strategy.get("rollingUpdate", {}).get("partition"):
        return None  # somebody else says which pods keep the earlier one
    came_up, goes_on = [], False
    for pod in pods:
        owners = {owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())}
        ends = "deletionTimestamp" in pod["metadata"]
        if metadata["uid"] not in owners or (_condition(pod, "Ready") == "True" and not ends):
            continue
        revision = pod["metadata"]["labels"].get(_REVISION)
        if ends or revision == status.get("updateRevision"):
            goes_on = True
        elif revision == status.get("currentRevision"):
            came_up.append(pod)
        else:  # of a revision that never came up
            return pod
    # Of the one that did, a pod may just be waiting for those that are replaced.
    return None if goes_on else min(came_up, key=_ordinal, default=None)


def _ordinal(pod: Document) -> tuple[int, str]:
    name: str = pod["metadata"]["name"]
    return len(name), name


def _job(found: Document) -> State:
    if _condition(found, "Failed") == "True":
        return State("failed", "it failed")
    return _READY if _condition(found, "Complete") == "True" else State("waiting", "not complete")


def _pod(found: Document) -> State:
    phase = found.get("status", {}).get("phase", "Pending")
    if phase == "Failed":
        return State("failed", "it failed")
    is_up = phase == "Succeeded" or _condition(found, "Ready") == "True"
    return _READY if is_up else State("waiting", f"{phase}, not ready")


def _condition(found: Document, kind: str) -> str:
    for condition in found.get("status", {}).get("conditions", ()):
        if condition["type"] == kind:
            return str(condition["status"])
    return ""
