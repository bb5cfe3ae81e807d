"""Each environment has its profile; to preprod and prod goes what was built of the commit, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).parents[2]


def profiles():
    document = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
    return {each["name"]: each for each in document["profiles"]}


def test_every_environment_has_a_profile():
    assert sorted(profiles()) == ["dev", "local", "preprod", "prod", "test"]


def test_preprod_and_prod_name_images_as_the_images_workflow_does():
    assert '"docker://$IMAGE:sha-$GITHUB_SHA"' in (ROOT / ".github" / "workflows" / "images.yml").read_text()
    for name in ("preprod", "prod"):
        tagger = profiles()[name]["build"]["tagPolicy"]["gitCommit"]
        assert (tagger["prefix"], tagger["variant"]) == ("sha-", "CommitSha")


def test_one_machine_pushes_nothing():
    assert [profiles()[name]["build"]["local"]["push"] for name in ("local", "test")] == [False, False]
