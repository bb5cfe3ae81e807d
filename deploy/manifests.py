"""A set of rendered manifests: read whole, or refused with everything that is wrong."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: Which set an object is of. Whatever has the label of a set and is not in it, is removed.
LABEL: Final = "tlsy.dev/set"
#: They hold data, or what they define does: a deployment makes and changes them, and never removes any.
KEPT_KINDS: Final = frozenset(
    {"CustomResourceDefinition", "Namespace", "PersistentVolume", "PersistentVolumeClaim"}
)
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})

Document = dict[str, Any]


class RefusedError(Exception):
    """The set is not deployed; nothing was changed, but what was applied of what is kept."""

    def __init__(self, problems: list[str], applied: Sequence[Document] = ()) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
        self.applied = [str(identity(each)) for each in applied]


@dataclass(frozen=True, slots=True)
class Identity:
    """What two manifests of one object have in common; the version of its API is not part of it."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.lower()}/{self.name}"


def identity(document: Document) -> Identity:
    """Of an object as written or as the cluster has it."""
    group, _, version = document["apiVersion"].rpartition("/")
    metadata = document["metadata"]
    return Identity(
        group if version else "", document["kind"], metadata.get("namespace") or "", metadata["name"]
    )


@dataclass(frozen=True, slots=True)
class ManifestSet:
    """What is to be in a namespace under a name, and nothing else under that name."""

    name: str
    namespace: str
    documents: tuple[Document, ...]

    @property
    def label(self) -> str:
        """The value of LABEL: two namespaces of a cluster may have a set of the same name."""
        return f"{self.namespace}.{self.name}"

    @property
    def kept(self) -> list[Document]:
        """What is applied first and outlives the set. It has no label."""
        return [each for each in self.documents if each["kind"] in KEPT_KINDS]

    @property
    def replaceable(self) -> list[Document]:
        """The rest, labelled."""
        labelled = [copy.deepcopy(each) for each in self.documents if each["kind"] not in KEPT_KINDS]
        for each in labelled:
            each["metadata"]["labels"] = {**(each["metadata"].get("labels") or {}), LABEL: self.label}
        return labelled

    @property
    def revision(self) -> str:
        """The same for the same set, whatever files it is in."""
        texts = sorted(json.dumps(each, sort_keys=True) for each in self.documents)
        return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]

    def pack(self) -> bytes:
        """For a Secret, which holds 1 MiB."""
        return gzip.compress(json.dumps(self.documents).encode(), mtime=0)

    def unpacked(self, packed: bytes) -> ManifestSet:
        """The set of the same name that was packed."""
        return ManifestSet(self.name, self.namespace, tuple(json.loads(gzip.decompress(packed))))


def read(folder: Path, name: str, namespace: str) -> ManifestSet:
    """Every manifest below a folder.

    Raises:
        RefusedError: with all that is wrong: none is there, is one, is there once, or is of the namespace.
    """
    documents: list[Document] = []
    places: dict[tuple[str, str, str], str] = {}
    problems = []
    if len(f"{namespace}.{name}") > 63:  # noqa: PLR2004  the longest value of a label
        problems.append(f"{namespace}.{name} is longer than a label's value may be")
    for path in sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES):
        try:
            loaded = yaml.load_all(path.read_text(encoding="utf-8"), _Loader)
            found = list(_flat(loaded))
            json.dumps(found, allow_nan=False)  # what JSON cannot say, no cluster can be told
        except (OSError, yaml.YAMLError, TypeError, ValueError) as error:
            problems.append(f"{path}: {error}")
            continue
        for place, document in found:
            where = f"{path}, {place}"
            if problem := _wrong(document, name, namespace):
                problems.append(f"{where}: {problem}")
                continue
            documents.append(document)
            it = identity(document)
            before = places.setdefault((it.group, it.kind, it.name), where)
            if before != where:
                problems.append(f"{where}: {it} is also in {before}")
    if not documents and not problems:
        is_none = "no .yaml, .yml or .json of a manifest is in it" if folder.is_dir() else "is no folder"
        problems.append(f"{folder}: {is_none}")
    if problems:
        raise RefusedError(problems)
    return ManifestSet(name, namespace, tuple(documents))


class _Loader(yaml.SafeLoader):
    """Reads what looks like a date as text, as Kubernetes does."""


_Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _flat(documents: Iterator[Any]) -> Iterator[tuple[str, Any]]:
    """Each with its place in the file."""
    for number, document in enumerate(documents, 1):
        place = f"document {number}"
        if isinstance(document, dict) and document.get("kind") == "List":
            items = document.get("items") or ()
            if isinstance(items, list | tuple):
                yield from ((f"{place}, item {item}", each) for item, each in enumerate(items, 1))
            else:
                yield place, document
        elif document is not None:
            yield place, document


def _wrong(document: Any, name: str, namespace: str) -> str:
    """What is wrong with a manifest, or nothing."""
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        kind = document.get("kind") if isinstance(document, dict) else None
        return f"{kind or 'it'} is no manifest: it has no metadata"
    metadata = document["metadata"]
    if not all(isinstance(document.get(key), str) for key in ("apiVersion", "kind")):
        return f"{metadata.get('name', 'it')} is no manifest: apiVersion and kind are needed"
    if not isinstance(metadata.get("name"), str):
        return f"{document['kind']} without a name: what is named by the cluster cannot be found again"
    return _of_no_use(document, name, namespace)


def _of_no_use(document: Document, name: str, namespace: str) -> str:
    """Why a manifest cannot be in the set, or nothing."""
    it = identity(document)
    if not isinstance(document["metadata"].get("labels") or {}, dict):
        return f"{it} has labels that are no names with values"
    if (it.kind, it.name) in {("Secret", f"{name}-deployed"), ("Lease", f"{name}-deploy")}:
        return f"{it} is what the deployment of {name} itself keeps there: give it another name"
    if it.namespace not in {"", namespace}:
        return f"{it} is of namespace {it.namespace}, the set of {namespace}"
    return ""
