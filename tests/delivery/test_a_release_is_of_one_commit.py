"""A tag that is moved to another commit names nothing: who pulled the version has what was released first."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

RELEASE: Final = Path(__file__).parents[2] / ".github" / "workflows" / "release.yml"
#: A registry with the image of this commit, and that of a release if `released` is its digest.
SKOPEO: Final = """\
#!/bin/bash
case "$1 ${!#}" in
  inspect*:sha-commit) echo sha256:this ;;
  inspect*:v1.2.0) echo "$released" ;;
  list-tags*) [[ -z $fails ]] && printf '"%s"\\n' sha-commit v1.2.0-rc ${released:+v1.2.0} ;;
  copy*) echo "${@: -2}" ;;
esac
"""


def naming(tmp_path: Path, **registry: str) -> subprocess.CompletedProcess[str]:
    """The step that names an image, where every signature is as it should be."""
    (step,) = (
        each for each in yaml.safe_load(RELEASE.read_text())["jobs"]["image"]["steps"] if "run" in each
    )
    for program, text in {"skopeo": SKOPEO, "cosign": "#!/bin/bash", "gh": "#!/bin/bash"}.items():
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    github = {"REPOSITORY_OWNER": "Owner", "REPOSITORY": "Owner/tlsy", "SHA": "commit", "REF_NAME": "v1.2.0"}
    told = {f"GITHUB_{name}": value for name, value in github.items()}
    path = f"{tmp_path}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        env={"HOME": str(tmp_path), "PATH": path, "SERVICE": "agent", **told, **registry},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


@pytest.mark.parametrize("released", ["", "sha256:this"])
def test_a_version_is_named_and_may_be_again_on_the_same_commit(tmp_path, released):
    image = "docker://ghcr.io/owner/tlsy-agent"
    assert naming(tmp_path, released=released).stdout == f"{image}@sha256:this {image}:v1.2.0\n"


def test_a_tag_that_was_moved_is_refused(tmp_path):
    ran = naming(tmp_path, released="sha256:other")
    assert ran.returncode == 1
    assert ran.stdout.startswith(
        "::error::ghcr.io/owner/tlsy-agent:v1.2.0 is sha256:other since it was released"
    )
    assert "docker://" not in ran.stdout


def test_a_registry_that_does_not_say_what_is_released_is_no_leave_to_name(tmp_path):
    ran = naming(tmp_path, fails="yes")
    assert (ran.returncode != 0, ran.stdout) == (True, "")
