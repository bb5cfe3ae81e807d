from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest

from images.build import names
from images.closure import PYTHON_VERSION
from images.servers import SERVERS
from images.source import LABEL, source_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from images.layout import Layout

pytestmark = pytest.mark.docker

MB = 1_000_000
SERVICES = [name for name in names() if name not in SERVERS]
#: Who has one of these in a container can do more there than run the service.
TOOLS = re.compile(
    r"(ba|da|z)?sh|apt.*|dpkg.*|pip.*|uv|perl.*|curl|wget|(g?cc|c\+\+|g\+\+|ld|as|make|gdb)(-.*)?"
)
SECRETS = re.compile(r".*\.(key|p12|env)|id_(rsa|ed25519)|\.netrc|\.pypirc|\.env.*")


def files(layout: Layout, image) -> list[PurePosixPath]:
    return [PurePosixPath("/", entry.name) for entry, _ in layout.files(image) if not entry.isdir()]


@pytest.fixture(params=SERVICES)
def image(request, built):
    return built.images[request.param]


@pytest.fixture
def name(image) -> str:
    title: str = image.config["config"]["Labels"]["org.opencontainers.image.title"]
    return title.removeprefix("tlsy-")


def test_it_is_small(image, name, built):
    assert image.bytes <= 180 * MB
    assert built.beyond_shared[name] <= 25 * MB


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_for_tests_is_small_too_and_shares_what_it_is_built_on(name, built):
    assert built.images[name].bytes <= 180 * MB
    assert len({built.images[server].layers[0] for server in SERVERS}) == 1


def test_it_runs_as_a_numbered_user_that_is_not_root(image):
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.config["config"]["User"])


def test_nothing_in_it_belongs_to_that_user_or_lends_rights(image, layout):
    entries = [entry for entry, _ in layout.files(image)]
    assert {entry.uid for entry in entries} == {0}
    assert [entry.name for entry in entries if entry.isfile() and entry.mode & 0o6022] == []


def test_it_has_no_shell_compiler_or_package_manager(image, layout):
    programs = [path for path in files(layout, image) if path.parent.name in {"bin", "sbin"}]
    assert [path for path in programs if TOOLS.fullmatch(path.name)] == []
    assert {path.name for path in programs} == {"python3", "python3.11"}
    assert [path for path in files(layout, image) if "pip" in path.parts or "uv" in path.parts] == []


def test_it_has_no_secret(image, layout):
    assert [path for path in files(layout, image) if SECRETS.fullmatch(path.name)] == []


def test_it_has_no_file_of_another_service_or_of_tests(image, name, layout):
    ours = [path for path in files(layout, image) if path.is_relative_to("/app/tlsy")]
    if name == "tenant-registry":  # it makes everybody's tables
        ours = [path for path in ours if path.parts[4] not in {"migrations", "__init__.py", "__pycache__"}]
    libs = {"contracts", "runtime", "rpc", "tenancy", "eventlog"}
    assert {path.parts[3] for path in ours} <= libs | {name.replace("-", "_")}
    assert [path for path in files(layout, image) if path.name in {"pytest", "conftest.py"}] == []


def test_its_labels_say_what_it_is(image, name):
    labels = {
        key.removeprefix("org.opencontainers.image."): value
        for key, value in image.config["config"]["Labels"].items()
    }
    assert labels.pop(LABEL) == source_digest()
    assert labels.keys() - {"base.name", "base.digest"} == {
        *("title", "description", "vendor", "licenses", "version", "revision", "created")
    }
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
    assert labels["created"][:19] == image.config["created"][:19]


def installed(layout: Layout, image) -> Iterator[str]:
    for path in files(layout, image):
        if path.name == "METADATA":
            distribution, version = path.parent.stem.split("-", 1)
            yield f"pkg:pypi/{distribution.replace('_', '-').lower()}@{version}"
        elif path == PurePosixPath("/", PYTHON_VERSION):  # on a base whose Python is of no package
            yield "pkg:generic/python"
        elif path.parent.name == "status.d":
            yield f"pkg:deb/debian/{path.name.replace('+', '%2B')}"


def test_its_bill_of_materials_lists_exactly_what_is_installed(image, name, layout, folder):
    document = json.loads((folder / f"{name}.cdx.json").read_text())
    told = {
        purl if purl.startswith("pkg:pypi") else purl.rpartition("@")[0]
        for purl in (component["purl"] for component in document["components"])
    }
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    assert told == set(installed(layout, image))
    assert {"pkg:pypi/grpcio", "pkg:deb/debian/libc6"} <= {purl.split("@")[0] for purl in told}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_for_tests_runs_as_a_numbered_user_too(name, built):
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", built.images[name].config["config"]["User"])
