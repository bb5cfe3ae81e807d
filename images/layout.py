"""An OCI image layout: a folder with every image's layers once, and what the layers hold.

What `docker build` makes is different each time: it records when, in which order files were found, and what
it was made from. `Layout.add` keeps what a container would see and writes it in one way: entries sorted, one
time for all, no owners' names, the configuration without the build's traces. Two builds of the same content
are then the same bytes, whichever builder made them.

Who adds is alone, and every file is written aside and then named: whatever ends a build, a full disk too,
what was there before is whole.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import tarfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from images.context import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
_NAME: Final = "io.containerd.image.name"
#: What of a built image's configuration is about the container and not about the build.
_KEPT: Final = (
    *("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "ExposedPorts", "Volumes"),
    *("StopSignal", "Healthcheck"),
)
#: More would gain a tenth and cost three times as long.
_COMPRESSION: Final = 1
#: The time of every file: layers that did not change are the same at the next commit, and are not sent again.
_TIME_S: Final = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of an image: its digest as it is sent, its digest as it is unpacked, and bytes of each."""

    digest: str
    diff_id: str
    sent_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a layout; `digest` is its manifest's, the one that it is pulled by."""

    name: str
    digest: str
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]

    @property
    def config_digest(self) -> str:
        """What an engine calls it by."""
        return f"sha256:{hashlib.sha256(_json(self.config)).hexdigest()}"

    @property
    def bytes(self) -> int:
        """Of its layers, unpacked."""
        return sum(layer.bytes for layer in self.layers)


class Layout:
    """The layout in a folder, made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._rewritten_before = folder.with_name(f"{folder.name}.layers.json")
        #: What is being written; a killed build leaves it to the next.
        self._part = folder.with_name(f"{folder.name}.part")

    def add(self, name: str, saved: Path, created: datetime) -> Image:
        """Adds what `docker save` wrote of one image, as `name`; another image of that name is replaced.

        Raises:
            BuildError: it cannot be written; the layout is as before.
        """
        with self._alone():
            return self._add(name, saved, created)

    def put_beside(self, name: str, content: bytes) -> None:
        """Writes a file of that name beside the layout's folder.

        Raises:
            BuildError: it cannot be written; what was there is as before.
        """
        with self._alone():
            self._put(self._folder.with_name(name), content)

    def _add(self, name: str, saved: Path, created: datetime) -> Image:
        self._put(self._folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}\n')
        with tarfile.open(saved) as archive:
            described = json.loads(_read(archive, "manifest.json"))[0]
            built = json.loads(_read(archive, described["Config"]))
            layers = tuple(
                self._layer(archive, path, diff_id)
                for path, diff_id in zip(described["Layers"], built["rootfs"]["diff_ids"], strict=True)
            )
        config = {
            "architecture": built["architecture"],
            "os": built["os"],
            "created": created.isoformat().replace("+00:00", "Z"),
            "config": {key: built["config"][key] for key in _KEPT if built["config"].get(key)},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, **self._blob(_json(config))},
            "layers": [
                {"mediaType": _LAYER, "digest": layer.digest, "size": layer.sent_bytes} for layer in layers
            ],
        }
        descriptor = self._blob(_json(manifest))
        self._name(name, descriptor)
        return Image(name, descriptor["digest"], config, layers)

    def archive(self, name: str, target: IO[bytes]) -> None:
        """Writes the image of this name as `docker load` and `ctr images import` read it.

        Raises:
            LookupError: there is none.
        """
        named = self._named()
        if name not in named:
            raise LookupError(f"{self._folder} has no image {name}: {', '.join(named) or 'none at all'}")
        manifest = json.loads(self._path(named[name]).read_bytes())
        config, *layers = (
            f"blobs/{each['digest'].replace(':', '/')}" for each in (manifest["config"], *manifest["layers"])
        )
        content = _json([{"Config": config, "RepoTags": [name], "Layers": layers}])
        with tarfile.open(fileobj=target, mode="w|") as archive:
            for path in dict.fromkeys((config, *layers)):
                archive.add(self._folder / path, path)
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

    def labels(self, name: str) -> dict[str, str] | None:
        """Of the image of this name; None if there is none."""
        digest = self._named().get(name)
        if digest is None:
            return None
        manifest = json.loads(self._path(digest).read_bytes())
        config = json.loads(self._path(manifest["config"]["digest"]).read_bytes())
        labels: dict[str, str] = config["config"].get("Labels", {})
        return labels

    def files(self, image: Image) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
        """Every entry of every layer, lowest first, with its content if it is a file."""
        for layer in image.layers:
            with tarfile.open(self._path(layer.digest), "r:gz") as archive:
                for entry in archive:
                    yield entry, archive.extractfile(entry) if entry.isfile() else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other build changes what is here."""
        try:
            with self._folder.with_name(f"{self._folder.name}.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    yield
                finally:
                    self._part.unlink(missing_ok=True)
        except OSError as error:
            raise BuildError(
                f"{self._folder} cannot be written: {error}\n"
                "What was built before is whole. Make room on its disk, if that is full, and build again."
            ) from error

    def _put(self, path: Path, content: bytes) -> None:
        self._part.write_bytes(content)
        self._part.rename(path)

    def _layer(self, archive: tarfile.TarFile, path: str, diff_id: str) -> Layer:
        """One layer as it is kept; what was rewritten before is not again."""
        known = self._known_layers()
        if diff_id in known:
            layer = Layer(**known[diff_id])
            if self._path(layer.digest).exists():
                return layer
        content = archive.extractfile(path)
        if content is None:
            raise ValueError(f"{path} is no file")
        layer = self._rewritten(content)
        self._put(self._rewritten_before, _json(known | {diff_id: asdict(layer)}))
        return layer

    def _known_layers(self) -> dict[str, Any]:
        try:
            known: dict[str, Any] = json.loads(self._rewritten_before.read_bytes())
        except (FileNotFoundError, ValueError):  # without it they are rewritten again
            return {}
        return known

    def _rewritten(self, content: IO[bytes]) -> Layer:
        with self._part.open("wb") as file:
            sent = _Hashed(file)
            with gzip.GzipFile("", "wb", _COMPRESSION, sent, mtime=0) as packed:
                unpacked = _Hashed(packed)
                rewrite(content, unpacked)
        digest = sent.hash.hexdigest()
        self._part.rename(self._blobs / digest)
        return Layer(f"sha256:{digest}", f"sha256:{unpacked.hash.hexdigest()}", sent.bytes, unpacked.bytes)

    def _blob(self, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self._put(self._blobs / digest, content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _index(self) -> dict[str, Any]:
        path = self._folder / "index.json"
        empty: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
        try:
            return json.loads(path.read_bytes()) if path.exists() else empty
        except ValueError:
            raise BuildError(f"{path} is damaged: remove it and build all images again") from None

    def _named(self) -> dict[str, str]:
        """The digest of each image's manifest."""
        return {each["annotations"][_NAME]: each["digest"] for each in self._index()["manifests"]}

    def _name(self, name: str, descriptor: Mapping[str, Any]) -> None:
        index = self._index()
        annotations = {_NAME: name, "org.opencontainers.image.ref.name": name}
        others = [each for each in index["manifests"] if each["annotations"] != annotations]
        named = {"mediaType": _MANIFEST, **descriptor, "annotations": annotations}
        self._put(self._folder / "index.json", _json({**index, "manifests": [*others, named]}))


class _Hashed(io.RawIOBase):
    """Writes on, and knows how many bytes of which hash."""

    def __init__(self, target: Any) -> None:
        self._target = target
        self.hash = hashlib.sha256()
        self.bytes = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of it."""
        self.hash.update(data)
        self.bytes += len(data)
        self._target.write(data)
        return len(data)


def rewrite(layer: IO[bytes], target: Any) -> None:
    """Writes a layer's tar with its entries in order, and nothing that only the build knows.

    A hard link comes after what it links to. Modes, owners' numbers, links, whiteouts and capabilities stay.
    """
    with (
        tarfile.open(fileobj=layer) as source,
        tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as rewritten,
    ):
        for entry in sorted(source.getmembers(), key=lambda entry: (entry.islnk(), entry.name)):
            entry.mtime = _TIME_S
            entry.uname = entry.gname = ""
            entry.pax_headers = {
                key: value for key, value in entry.pax_headers.items() if key.startswith("SCHILY.xattr.")
            }
            rewritten.addfile(entry, source.extractfile(entry) if entry.isreg() else None)


def _read(archive: tarfile.TarFile, path: str) -> bytes:
    content = archive.extractfile(path)
    if content is None:
        raise ValueError(f"{path} is no file")
    return content.read()


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
