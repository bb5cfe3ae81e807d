"""What is published passed every check of its commit, is on a known base, and says what it consists of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from images.build import base_labels

ROOT: Final = Path(__file__).parents[2]
DIGEST: Final = f"sha256:{'d' * 64}"


def workflow(name: str) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    return document


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(name)["jobs"]
    return found


def steps(job: dict[str, Any]) -> list[str]:
    """Each as one line: the action that it uses, or what it runs."""
    return [" ".join(str(step.get("uses") or step["run"]).split()) for step in job["steps"]]


def at(job: dict[str, Any], words: str) -> int:
    (found,) = (number for number, step in enumerate(steps(job)) if words in step)
    return found


def test_only_a_commit_of_main_is_published_and_only_by_what_waits_for_its_checks():
    assert workflow("images.yml")[True] == {"push": {"branches": ["main"]}}
    called = {name: job["uses"] for name, job in jobs("images.yml").items() if "uses" in job}
    assert sorted(called.values()) == ["./.github/workflows/ci.yml", "./.github/workflows/security.yml"]
    writing = [job for job in jobs("images.yml").values() if "write" in job["permissions"].values()]
    assert [set(called) - set(job["needs"]) for job in writing] == [set()]


def test_what_the_images_workflow_calls_checks_everything():
    ran = [step for name in ("ci.yml", "security.yml") for job in jobs(name).values() for step in steps(job)]
    needed = ["make check", "make test", ".ci/run", "make check-advisories", "make check-delivery"]
    assert [
        command for command in needed if not any(step.endswith((command, f" {command}")) for step in ran)
    ] == []
    skipped = [
        f"{name}: {job}"
        for name in ("ci.yml", "security.yml")
        for job, told in jobs(name).items()
        if "if" in told
    ]
    assert skipped == ["security.yml: images"]  # images.yml scans those that it publishes


def test_what_is_published_was_scanned_and_is_attested_before_it_has_a_name():
    build, publish = jobs("images.yml")["build"], jobs("images.yml")["publish"]
    assert at(build, ".ci/base-image") < at(build, ".ci/scan-images") < at(build, "actions/upload-artifact")
    named = at(publish, 'docker://$IMAGE:sha-$GITHUB_SHA"')
    for attested in ("skopeo copy --preserve-digests --authfile", "attest-build-provenance", "attest-sbom"):
        assert min(number for number, step in enumerate(steps(publish)) if attested in step) < named
    assert steps(publish)[named].startswith('cosign sign --yes "$IMAGE@$DIGEST"')


def test_what_has_rights_to_publish_runs_nothing_of_the_repository():
    for name in ("images.yml", "release.yml"):
        for job in jobs(name).values():
            if "write" in job["permissions"].values():
                assert [step for step in steps(job) if "actions/checkout" in step or ".ci/" in step] == []


def test_staging_fetches_nothing_before_it_is_known_whose_it_is():
    deploy = jobs("staging.yml")["deploy"]
    assert workflow("staging.yml")[True].keys() == {"workflow_dispatch"}
    assert deploy["if"] == "github.ref == 'refs/heads/main'"
    assert at(deploy, "deploy.origin") < at(deploy, "actions/download-artifact") < at(deploy, ".ci/deploy")
    assert '--origin "$GITHUB_REPOSITORY@$COMMIT"' in steps(deploy)[at(deploy, ".ci/deploy")]
    secret = [number for number, step in enumerate(deploy["steps"]) if "secrets." in str(step)]
    assert secret == [at(deploy, ".ci/deploy")]


def test_a_release_verifies_what_staging_does():
    (verify,) = (step for step in steps(jobs("release.yml")["image"]) if "cosign verify" in step)
    asked = (
        "--certificate-github-workflow-sha",
        "slsa.dev/provenance/v1",
        "cyclonedx.org/bom",
        "--source-digest",
    )
    assert [words for words in asked if words not in verify] == []


def ran(
    script: str, tmp_path: Path, program: str, text: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """A script of .ci, where this program is the text that is given."""
    (tmp_path / program).write_text(f"#!/bin/bash\n{text}\n")
    (tmp_path / program).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return subprocess.run(
        [ROOT / ".ci" / script, *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def test_the_base_is_that_of_the_dockerfile_by_digest(tmp_path):
    base = "python:3.11-slim-bookworm"
    asks = f"[[ $4 == docker://docker.io/library/{base} ]] && echo {DIGEST}"
    assert ran("base-image", tmp_path, "skopeo", asks).stdout == f"{base}@{DIGEST}\n"
    assert base_labels(f"{base}@{DIGEST}") == {
        "org.opencontainers.image.base.name": base,
        "org.opencontainers.image.base.digest": DIGEST,
    }
    assert base_labels("python:3.11") == base_labels("") == {}


@pytest.mark.parametrize("answer", ["", "echo latest", "exit 1"])
def test_a_base_whose_digest_is_not_known_is_not_built_on(tmp_path, answer):
    refused = ran("base-image", tmp_path, "skopeo", answer)
    assert (refused.returncode != 0, refused.stdout) == (True, "")


def test_every_image_is_scanned_and_one_that_is_not_clean_fails(tmp_path):
    scans = f'echo "$1" >>{tmp_path}/scanned; [[ $1 != *agent* ]]'
    failed = ran("scan-images", tmp_path, "grype", scans, "t", "agent", "identity")
    assert (tmp_path / "scanned").read_text() == "docker:tlsy/agent:t\ndocker:tlsy/identity:t\n"
    assert (failed.returncode, failed.stderr) == (1, "scan-images: not clean: agent\n")
    assert ran("scan-images", tmp_path, "grype", scans, "t", "identity").returncode == 0
