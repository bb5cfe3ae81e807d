"""Whether an object of the cluster has become what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deploy.manifests import Document


@dataclass(frozen=True, slots=True)
class State:
    """`failed` will not become ready by waiting."""

    state: Literal["ready", "waiting", "failed"]
    why: str = ""


_READY = State("ready")


def state_of(found: Document) -> State:
    """Of workloads; everything else is ready when it is there."""
    match found["kind"]:
        case "Deployment" | "StatefulSet" | "DaemonSet":
            return _workload(found)
        case "Job":
            return _job(found)
        case "CustomResourceDefinition":
            established = _condition(found, "Established") == "True"
            return _READY if established else State("waiting", "not established")
    return _READY


def _workload(found: Document) -> State:
    status = found.get("status", {})
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 1):
        return State("waiting", "nobody has looked at it yet")
    if _condition(found, "Progressing") == "False":
        return State("failed", "it made no progress until its deadline")
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
            status.get("updatedReplicas", 0),
            status.get("availableReplicas", 0),
            status.get("replicas", 0),
        )
    if updated < wanted or available < wanted or all_of_it != wanted:
        return State(
            "waiting", f"{wanted} wanted, {updated} updated, {available} available, {all_of_it} in all"
        )
    return _READY


def _job(found: Document) -> State:
    if _condition(found, "Failed") == "True":
        return State("failed", "it failed")
    return _READY if _condition(found, "Complete") == "True" else State("waiting", "not complete")


def _condition(found: Document, kind: str) -> str:
    for condition in found.get("status", {}).get("conditions", ()):
        if condition["type"] == kind:
            return str(condition["status"])
    return ""
