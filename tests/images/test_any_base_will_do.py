"""Built on the public image too, whose Python is of no package and has an extension without its library."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from images.build import build
from images.closure import PYTHON_VERSION, left_out
from images.context import run
from images.layout import Layout
from images.sbom import sbom

from .saved import saved

if TYPE_CHECKING:
    from pathlib import Path

    import docker

#: What .ci/with-docker made of Debian's packages becomes like it; one that is like it already stays as it is.
BASE = r"""
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN set -eu; \
  if [ -e /usr/bin/python3 ]; then \
    mv /usr/bin/python3* /usr/local/bin; \
    cp -a /usr/lib/python3.11 /usr/local/lib; \
    rm -r /usr/lib/python3.11; \
  fi; \
  cd /usr/local/lib/python3.11/lib-dynload; \
  set -- _ctypes.*; \
  sed 's/libc\.so\.6/libX.so.6/g' "$1" >"_tkinter.${1#_ctypes.}"; \
  ldd "./_tkinter.${1#_ctypes.}" | grep -F 'libX.so.6 => not found'
"""
TELL = "import platform, ssl, sys; print(platform.python_version(), sys.executable)"


@pytest.mark.docker
def test_python_in_usr_local_and_of_no_package(engine: docker.DockerClient, tmp_path: Path, monkeypatch):
    (tmp_path / "Dockerfile").write_text(BASE)
    base = os.environ.get("PYTHON_BASE_IMAGE", "python:3.11-slim-bookworm")
    named = ["--tag", "tlsy-build/usr-local", f"--build-arg=BASE_IMAGE={base}"]
    run(["docker", "build", "--quiet", *named, str(tmp_path)])
    monkeypatch.setenv("PYTHON_BASE_IMAGE", "tlsy-build/usr-local")
    image = build(["agent"], tmp_path / "built", tag="usr-local").images["agent"]
    told = engine.containers.run(image.name, ["-c", TELL], entrypoint="python3", remove=True)
    version, program = told.decode().split()
    document = json.loads((tmp_path / "built" / "agent.cdx.json").read_text())
    purls = [each["purl"] for each in document["components"]]
    pythons = [purl for purl in purls if re.match("pkg:(generic|deb/debian)/(lib)?python", purl)]
    assert (program, pythons) == ("/usr/local/bin/python3", [f"pkg:generic/python@{version}"])


def test_a_python_of_no_package_is_in_the_bill_of_materials(tmp_path: Path):
    labels = {f"org.opencontainers.image.{name}": "any" for name in ("title", "version")}
    file = saved(tmp_path / "image.tar", labels, {str(PYTHON_VERSION): b"3.11.14\n"})
    layout = Layout(tmp_path / "oci")
    document = sbom(layout, layout.add("any", file, datetime(2026, 1, 1, tzinfo=UTC)), None)
    assert [each["purl"] for each in document["components"]] == ["pkg:generic/python@3.11.14"]


@pytest.mark.parametrize(
    "name",
    [
        *("_tkinter", "_testcapi", "_testinternalcapi", "_testmultiphase", "_testbuffer", "_testclinic"),
        *("_testimportmultiple", "_ctypes_test", "_xxtestfuzz", "xxlimited", "xxlimited_35", "_dbm", "_gdbm"),
    ],
)
def test_extensions_that_no_service_has_a_use_for_are_left_out(tmp_path: Path, name: str):
    names = [f"{each}.cpython-311-x86_64-linux-gnu.so" for each in (name, "_ssl", "_xxsubinterpreters")]
    for each in names:
        (tmp_path / each).touch()
    assert left_out(str(tmp_path), names) == set(names[:1])
