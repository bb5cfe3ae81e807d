"""Which container keeps a workload from coming up, in the words of the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from deploy.manifests import Document

#: Of a container that waits for something else, which is to blame if it says anything.
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
_CERTAIN, _LIKELY, _POSSIBLE = range(3)


@dataclass(frozen=True, slots=True)
class Blame:
    """A container of a pod; none where the pod has no place to run."""

    likelihood: int
    pod: str
    container: str
    text: str


def blame(workload: Document, pods: Sequence[Document]) -> Blame | None:
    """The most likely one, of the newest of the workload's pods; None if none of them says anything."""
    own = [pod for pod in pods if _is_of(workload, pod) and "deletionTimestamp" not in pod["metadata"]]
    own.sort(key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return min((each for pod in own for each in _of(pod)), key=lambda each: each.likelihood, default=None)


def _is_of(workload: Document, pod: Document) -> bool:
    """By its labels: a Deployment's pods are owned by something in between."""
    if workload["kind"] == "Pod":
        return bool(workload["metadata"]["name"] == pod["metadata"]["name"])
    wanted = workload.get("spec", {}).get("selector", {}).get("matchLabels", {})
    return bool(wanted) and wanted.items() <= pod["metadata"].get("labels", {}).items()


def _of(pod: Document) -> Iterator[Blame]:
    name, spec, status = pod["metadata"]["name"], pod["spec"], pod.get("status", {})
    images = {each["name"]: each["image"] for each in (*spec.get("initContainers", ()), *spec["containers"])}
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield Blame(_CERTAIN, name, "", f"pod/{name} has no node: {condition.get('message', '')}")
    for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if each.get("ready"):
            continue
        likelihood, words = _words(each)
        if words:
            where = f"container {each['name']} of pod/{name}, image {images[each['name']]}"
            yield Blame(likelihood, name, each["name"], f"{where}: {words}")


def _words(container: Document) -> tuple[int, str]:
    """Of one that is not ready; none of one that has done what it should."""
    state = container.get("state", {})
    waiting, running = state.get("waiting", {}), "running" in state
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    if ended and (ended["exitCode"] or waiting):
        said = (
            waiting.get("reason"),
            ended.get("reason"),
            f"exit code {ended['exitCode']}",
            ended.get("message"),
        )
        return _CERTAIN, _joined(said)
    if running:
        return _LIKELY, "it runs and is not ready"
    likelihood = _POSSIBLE if waiting.get("reason") in _STARTING else _CERTAIN
    return likelihood, _joined((waiting.get("reason"), waiting.get("message")))


def _joined(words: Sequence[str | None]) -> str:
    return ", ".join(" ".join(each.split()) for each in words if each)
