"""Builds images with a Docker engine and puts them into a layout, each with its bill of materials."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from images.context import (
    ROOT,
    BuildError,
    Distribution,
    build_wheels,
    distribution,
    locked_sbom,
    needed,
    prepare,
    run,
)
from images.layout import Image, Layout
from images.sbom import sbom
from images.servers import SERVERS
from images.source import LABEL, source_digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Programs of their own machines, and of people's: they are started from their packages.
_NO_IMAGE: Final = frozenset({"cli", "embedded"})


@dataclass(frozen=True, slots=True)
class Built:
    """Images by their short names, and the bytes of each that no other of them has."""

    images: Mapping[str, Image]
    beyond_shared: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Job:
    """What one `docker build` needs."""

    name: str
    folder: Path
    arguments: Mapping[str, str]
    target: str
    labels: Mapping[str, str]


def names() -> tuple[str, ...]:
    """What can be built: services, operators, and the servers that they need in tests."""
    return (*(folder.name for folder in _folders()), *SERVERS)


def build(
    wanted: Sequence[str],
    output: Path,
    *,
    tag: str,
    cache: bool = True,
    again: str = "",
    load: bool = True,
) -> Built:
    """Build these images; all of them are in `output`/oci then, and in the engine if they are to be loaded.

    Args:
        wanted: some of `names()`.
        output: a folder, which keeps other images that were built into it.
        tag: of their names, `tlsy/<name>:<tag>`.
        cache: whether the engine may use what it built before.
        again: with a word that was not used before it builds at least that again which only one image has.
        load: whether the engine is given what was built.

    Raises:
        BuildError: no engine answers, or one of them cannot be built.
    """
    try:
        _docker("version")
    except BuildError as error:
        raise BuildError(f"no Docker engine answers: start one, or use .ci/with-docker\n{error}") from None
    folders = {folder.name: folder for folder in _folders()}
    distributions = {name: distribution(folder) for name, folder in folders.items()}
    servers = [each for each in distributions.values() if each.answers_calls]
    created = datetime.fromtimestamp(int(_git("log", "-1", "--format=%ct")), UTC)
    layout = Layout(output / "oci")
    options = [*([] if cache else ["--no-cache"]), *(["--build-arg", f"AGAIN={again}"] if again else [])]
    images = {}
    with tempfile.TemporaryDirectory(prefix="tlsy-images-") as scratch:
        ours = [needed(distributions[name], servers) for name in wanted if name in distributions]
        wheels = build_wheels(frozenset().union(*ours), Path(scratch) / "wheels")
        for name in wanted:
            folder = Path(scratch) / name
            if name in distributions:
                prepare(distributions[name], servers, wheels, folder)
                job = _service(distributions[name], folder, created)
            else:
                job = _server(name, folder, created)
            images[name] = _build(job, layout, tag, created, options=options, load=load)
            shutil.rmtree(folder)
            locked = locked_sbom(distributions[name]) if name in distributions else None
            document = sbom(layout, images[name], locked)
            layout.put_beside(f"{name}.cdx.json", json.dumps(document, indent=1).encode())
    return Built(images, _beyond_shared(images))


def _folders() -> list[Path]:
    """Of what runs as a process of its own in a cluster."""
    found = [
        *ROOT.glob("services/*/src/tlsy/*/__main__.py"),
        *ROOT.glob("operators/*/src/tlsy/*/__main__.py"),
    ]
    folders = sorted(path.parents[3].relative_to(ROOT) for path in found)
    return [folder for folder in folders if folder.name not in _NO_IMAGE]


def _service(image: Distribution, folder: Path, created: datetime) -> _Job:
    base = os.environ.get("PYTHON_BASE_IMAGE", "")
    labels = _labels(image.name, image.description, image.version, created) | base_labels(base)
    arguments = {"BASE_IMAGE": base, "DISTRIBUTION": image.name}
    return _Job(image.name, folder, arguments, "server" if image.answers_calls else "program", labels)


def _server(name: str, folder: Path, created: datetime) -> _Job:
    server = SERVERS[name]
    server.prepare(folder)
    for path in folder.rglob("*"):
        if not path.is_symlink():  # the mask of whoever fetched or checked it out is no part of an image
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    labels = _labels(name, server.description, server.version(), created)
    return _Job(name, folder, {each: os.environ.get(each, "") for each in server.bases}, "", labels)


def _labels(name: str, description: str, version: str, created: datetime) -> dict[str, str]:
    label = {
        "title": f"tlsy-{name}",
        "description": description,
        "vendor": "TLS-Y",
        "licenses": "Apache-2.0",
        "version": version,
        "revision": _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
        "created": created.isoformat(),
    }
    named = {f"org.opencontainers.image.{key}": value for key, value in label.items()}
    return {**named, LABEL: source_digest()}


def base_labels(base: str) -> dict[str, str]:
    """Which image was built on, if it is named by digest: `name@digest`."""
    name, _, digest = base.partition("@")
    told = {"name": name, "digest": digest} if digest else {}
    return {f"org.opencontainers.image.base.{key}": value for key, value in told.items()}


def _build(
    job: _Job, layout: Layout, tag: str, created: datetime, *, options: Sequence[str], load: bool
) -> Image:
    name, built = f"tlsy/{job.name}:{tag}", f"tlsy-build/{job.name}"
    arguments = [f"--build-arg={name}={value}" for name, value in job.arguments.items() if value]
    labels = [word for label, value in job.labels.items() for word in ("--label", f"{label}={value}")]
    _docker(
        *("build", "--quiet", "--tag", built, *arguments, *labels),
        *options,
        *(("--target", job.target) if job.target else ()),
        str(job.folder),
    )
    with tempfile.TemporaryDirectory(prefix="tlsy-saved-") as folder:
        saved = Path(folder) / "image.tar"
        _docker("save", "--output", str(saved), built)
        image = layout.add(name, saved, created)
    if load and _loaded(name) != image.config_digest:
        with tempfile.TemporaryFile() as archive:
            layout.archive(name, archive)
            archive.seek(0)
            _docker("load", "--quiet", stdin=archive)
    return image


def _loaded(name: str) -> str:
    """What the engine has by that name; "" if nothing."""
    return _docker("image", "ls", "--no-trunc", "--quiet", name)


def _beyond_shared(images: Mapping[str, Image]) -> dict[str, int]:
    """Bytes of each image's layers that no other of these has; not of servers for tests."""
    ours = {name: image for name, image in images.items() if name not in SERVERS}
    having = Counter(layer.diff_id for image in ours.values() for layer in set(image.layers))
    return {
        name: sum(layer.bytes for layer in image.layers if having[layer.diff_id] == 1)
        for name, image in ours.items()
    }


def _git(*arguments: str) -> str:
    return run(["git", *arguments])


def _docker(*arguments: str, stdin: IO[bytes] | None = None) -> str:
    return run(["docker", *arguments], stdin=stdin)
