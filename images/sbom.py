"""What an image consists of, as CycloneDX: what is found in its files, told as the lock file tells it."""

from __future__ import annotations

import re
import uuid
from email.parser import BytesHeaderParser
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from images.closure import PYTHON_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from images.layout import Image, Layout

_JAR: Final = re.compile(r"(?P<name>.+?)-(?P<version>\d[\w.]*)\.jar")


def sbom(layout: Layout, image: Image, locked: Mapping[str, Any] | None) -> dict[str, Any]:
    """The bill of materials of an image.

    Args:
        layout: where it is.
        image: the image.
        locked: what uv tells of the lock file in the same format, for all that the image may have of it.
    """
    known = _known(locked) if locked else {}
    found = sorted(_found(layout, image), key=lambda each: (each["purl"], each["name"]))
    components = [known.get((each["name"], each["version"]), {}) | each for each in found]
    labels = image.config["config"]["Labels"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        # The same image has the same document.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, image.digest)}",
        "metadata": {
            "timestamp": image.config["created"],
            "component": {
                "type": "container",
                "bom-ref": image.digest,
                "name": labels["org.opencontainers.image.title"],
                "version": labels["org.opencontainers.image.version"],
                "hashes": [{"alg": "SHA-256", "content": image.digest.removeprefix("sha256:")}],
            },
        },
        "components": components,
        "dependencies": [{"ref": image.digest, "dependsOn": [each["bom-ref"] for each in components]}],
    }


def _known(locked: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Name and version to hashes and places in the index."""
    return {
        (each["name"], each["version"]): {
            key: value for key, value in each.items() if key in {"externalReferences", "properties"}
        }
        for each in locked["components"]
        if "version" in each
    }


def _found(layout: Layout, image: Image) -> Iterator[dict[str, Any]]:
    dpkg = {}
    for entry, content in layout.files(image):
        path = PurePosixPath(entry.name.removeprefix("./"))
        if content is None:
            continue
        if path.name == "METADATA" and path.parent.suffix == ".dist-info":
            told = BytesHeaderParser().parse(content)
            yield _component(re.sub(r"[-_.]+", "-", told["Name"]).lower(), told["Version"], "pypi")
        elif path.suffix == ".jar" and path.is_relative_to("opt") and (jar := _JAR.fullmatch(path.name)):
            yield _component(jar["name"], jar["version"], "maven")
        elif path == PurePosixPath(PYTHON_VERSION):
            yield _component("python", content.read().decode().strip(), "generic")
        elif path.parent.name == "status.d" or path == PurePosixPath("var/lib/dpkg/status"):
            dpkg[path] = content.read().decode()
    for text in dpkg.values():
        for stanza in text.split("\n\n"):
            if stanza.strip():
                fields = dict(
                    line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " "
                )
                yield _component(fields["Package"], fields["Version"], "deb/debian")


def _component(name: str, version: str, kind: str) -> dict[str, Any]:
    purl = f"pkg:{kind}/{quote(name)}@{quote(version)}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
