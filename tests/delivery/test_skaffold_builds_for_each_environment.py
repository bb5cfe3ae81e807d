"""Each environment has its profile; to preprod and prod goes what was built of the commit, nothing else."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest
import yaml

from images.context import distribution, needed, run

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
ARTIFACTS: Final = {each["image"].removeprefix("tlsy-"): each for each in DOCUMENT["build"]["artifacts"]}


def profiles():
    return {each["name"]: each for each in DOCUMENT["profiles"]}


def test_every_environment_has_a_profile():
    assert sorted(profiles()) == ["dev", "local", "preprod", "prod", "test"]


def test_preprod_and_prod_name_images_as_the_images_workflow_does():
    assert '"docker://$IMAGE:sha-$GITHUB_SHA"' in (ROOT / ".github" / "workflows" / "images.yml").read_text()
    for name in ("preprod", "prod"):
        tagger = profiles()[name]["build"]["tagPolicy"]["gitCommit"]
        assert (tagger["prefix"], tagger["variant"]) == ("sha-", "CommitSha")


def test_one_machine_pushes_nothing():
    assert [profiles()[name]["build"]["local"]["push"] for name in ("local", "test")] == [False, False]


def is_watched(file: str, paths: list[str], ignored: list[str]) -> bool:
    """As Skaffold reads them: a folder is all that is in it."""
    folders = [path.removesuffix("/**") for path in paths]
    named = any(file == folder or file.startswith(f"{folder}/") for folder in folders)
    return named and not any(fnmatch(file, pattern) for pattern in ignored)


@pytest.mark.parametrize("name", ARTIFACTS)
def test_whatever_an_image_is_made_of_builds_it_again(name):
    """The registry's has every service's migrations."""
    servers = [distribution(Path("services") / each) for each in ARTIFACTS]
    image = distribution(Path("services") / name)
    folders = [str(folder / part) for folder in needed(image, servers) for part in ("src", "pyproject.toml")]
    made_of = run(["git", "ls-files", "--", "images", "uv.lock", "pyproject.toml", *folders]).splitlines()
    assert f"services/{name}/pyproject.toml" in made_of
    told = ARTIFACTS[name]["custom"]["dependencies"]
    assert [file for file in made_of if not is_watched(file, told["paths"], told["ignore"])] == []
