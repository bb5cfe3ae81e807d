"""Deployed is what images.yml made, signed and attested of a commit of main; not what anybody else left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from deploy.manifests import RefusedError
from deploy.origin import Origin, UnknownOriginError, images_of, published

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).parents[2]
COMMIT: Final = "c" * 40
DIGEST: Final = f"@sha256:{'d' * 64}"
OURS: Final = f"ghcr.io/acme/tlsy-identity{DIGEST}"
RUN: Final = {
    "id": 7,
    "path": ".github/workflows/images.yml",
    "event": "push",
    "head_branch": "main",
    "head_repository": {"full_name": "Acme/suite"},
    "head_sha": COMMIT,
    "status": "completed",
    "conclusion": "success",
}


class FakeCalls:
    """gh and cosign: what they are asked, and which words they refuse."""

    def __init__(self, *refused: str, run: dict[str, object] | None = None, main: str = "ahead") -> None:
        self.refused = refused
        self.answers = {"runs": run or RUN, "compare": {"status": main}}
        self.asked: list[Sequence[str]] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.asked.append(command)
        if any(word in command for word in self.refused):
            raise UnknownOriginError("no matching signatures")
        return json.dumps(next((self.answers[key] for key in self.answers if key in command[-1]), {}))


def workload(image: str, **more: object) -> dict[str, Any]:
    pod = {"containers": [{"name": "main", "image": image}], **more}
    return {"kind": "Deployment", "spec": {"template": {"spec": pod}}}


def test_the_commit_of_a_run_that_published_it():
    assert published("Acme/suite", "7", FakeCalls()) == COMMIT


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"event": "pull_request"}, "event is pull_request, not push"),
        ({"event": "workflow_dispatch"}, "event is workflow_dispatch"),
        ({"head_branch": "mine"}, "head_branch is mine, not main"),
        ({"head_repository": {"full_name": "stranger/suite"}}, "head_repository is stranger/suite"),
        ({"head_repository": None}, "head_repository is None"),
        ({"conclusion": "failure"}, "conclusion is failure"),
        ({"status": "in_progress", "conclusion": None}, "status is in_progress, not completed"),
        ({"path": ".github/workflows/ci.yml"}, "path is .github/workflows/ci.yml"),
    ],
)
def test_a_run_that_anybody_else_had_a_hand_in_is_refused(changed, said):
    with pytest.raises(UnknownOriginError, match=said):
        published("Acme/suite", "7", FakeCalls(run={**RUN, **changed}))


@pytest.mark.parametrize("status", ["behind", "diverged"])
def test_what_main_no_longer_has_is_refused(status):
    with pytest.raises(UnknownOriginError, match="main does not have"):
        published("Acme/suite", "7", FakeCalls(main=status))


def test_no_part_of_an_address_is_taken_for_the_number_of_a_run():
    calls = FakeCalls()
    with pytest.raises(UnknownOriginError, match="not the number of a run"):
        published("Acme/suite", "7/../../stranger", calls)
    assert calls.asked == []


def test_signature_provenance_and_contents_of_an_image_are_asked_for_by_commit():
    calls = FakeCalls()
    Origin("Acme/suite", COMMIT, calls).check([workload(OURS)])
    signed, *attested = (" ".join(command) for command in calls.asked)
    signer = "https://github.com/Acme/suite/.github/workflows/images.yml@refs/heads/main"
    assert signed.startswith(f"cosign verify {OURS} ")
    assert f"--certificate-identity {signer} --certificate-github-workflow-sha {COMMIT}" in signed
    assert [told.partition("--predicate-type ")[2].split()[0] for told in attested] == [
        "https://slsa.dev/provenance/v1",
        "https://cyclonedx.org/bom",
    ]
    assert [f"--source-ref refs/heads/main --source-digest {COMMIT}" in told for told in attested] == [
        True
    ] * 2


@pytest.mark.parametrize("refused", ["cosign", "https://slsa.dev/provenance/v1", "https://cyclonedx.org/bom"])
def test_an_image_that_lacks_one_of_them_is_refused(refused):
    with pytest.raises(RefusedError, match="no matching signatures"):
        Origin("Acme/suite", COMMIT, FakeCalls(refused)).check([workload(OURS)])


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/acme/tlsy-identity:v1",
        "ghcr.io/acme/tlsy-identity@sha256:d",
        f"ghcr.io/acme/elsewhere{DIGEST}",
        f"ghcr.io/stranger/tlsy-identity{DIGEST}",
        f"ghcr.io/acme/tlsy-identity{DIGEST} --insecure",
        f"busybox{DIGEST}",
    ],
)
def test_an_image_that_is_not_ours_by_digest_is_refused_and_asked_nobody(image):
    calls = FakeCalls()
    with pytest.raises(RefusedError, match="is not one of Acme/suite's own, named by digest"):
        Origin("Acme/suite", COMMIT, calls).check([workload(OURS), workload(image)])
    assert all(image not in command for command in calls.asked)


def test_manifests_without_an_image_are_refused():
    with pytest.raises(RefusedError, match="name no image"):
        Origin("Acme/suite", COMMIT, FakeCalls()).check([{"kind": "ConfigMap", "data": {"a": "b"}}])


def test_an_image_is_found_wherever_it_is_named():
    first = {"initContainers": [{"image": "init"}], "ephemeralContainers": [{"image": "debug"}]}
    volume = {"volumes": [{"name": "models", "image": {"reference": "volume"}}]}
    operated: dict[str, Any] = {
        "kind": "Suite",
        "spec": {"image": {"repository": "r", "tag": "t"}, "args": [f"--with={OURS}"]},
    }
    defined: dict[str, Any] = {"kind": "CustomResourceDefinition", "spec": {"image": {"type": "string"}}}
    documents = [workload("main", **first, **volume), operated, defined]
    assert images_of(documents) == sorted(
        [*("init", "debug", "volume", "main"), f"--with={OURS}", "{'repository': 'r', 'tag': 't'}"]
    )


def test_a_deployment_with_another_origin_asks_the_cluster_nothing(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps({**workload("busybox"), "apiVersion": "apps/v1", "metadata": {"name": "a"}})
    )
    called = tmp_path / "kubectl"
    called.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    called.chmod(0o755)
    options = ("--name", "suite", "--namespace", "tlsy", "--kubectl", called)
    ran = subprocess.run(
        [sys.executable, "-m", "deploy", tmp_path, *options, "--origin", f"Acme/suite@{COMMIT}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, (tmp_path / "asked").exists()) == (2, False)
    assert "busybox: is not one of Acme/suite's own, named by digest" in ran.stderr
