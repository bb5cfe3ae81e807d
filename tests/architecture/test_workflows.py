"""What workflows must not be: able to do more than they need, or to run what somebody else can change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from images.build import names
from images.servers import SERVERS
from tests.architecture.tree import ROOT, at, services

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORKFLOWS: Final = ROOT / ".github" / "workflows"
_USES: Final = re.compile(r"^\s*(?:-\s+)?uses:\s*(?P<action>\S+)(?P<rest>.*)$")
_PINNED: Final = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
_VERSION: Final = re.compile(r"\s+# v\d+\.\d+\.\d+")
#: They run with our rights on what a stranger wrote.
_DANGEROUS: Final = frozenset({"pull_request_target", "workflow_run"})


def _uses(path: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if found := _USES.match(line):
            yield number, found["action"], found["rest"]


def unpinned(path: Path) -> list[str]:
    """Actions not named by commit with their version beside it; those of this repository are ours."""
    return [
        at(path, number, f"{action}: name the commit by its 40 digits and the version as `# v1.2.3`")
        for number, action, rest in _uses(path)
        if not action.startswith("./") and not (_PINNED.fullmatch(action) and _VERSION.fullmatch(rest))
    ]


def at_two_versions(paths: list[Path]) -> list[str]:
    """Actions that are pinned to different commits or called by different versions."""
    first: dict[str, str] = {}
    problems = []
    for path in paths:
        for number, action, rest in _uses(path):
            pinned = f"{action}{rest}"
            if first.setdefault(action.partition("@")[0], pinned) != pinned:
                problems.append(at(path, number, f"{action} is elsewhere at another version"))
    return problems


def loose(path: Path) -> list[str]:
    """What a workflow may do beyond its need, and how long it may do it."""
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    problems = []
    allowed = workflow.get("permissions")
    if not isinstance(allowed, dict) or set(allowed.items()) - {("contents", "read")}:
        problems.append("permissions: at the top `{}` or `contents: read`; a job says what more it needs")
    triggers = workflow[True]  # what YAML 1.1 makes of `on`
    problems += [
        f"on: {name} runs a stranger's text with our rights" for name in sorted(_DANGEROUS & set(triggers))
    ]
    if workflow.get("defaults", {}).get("run", {}).get("shell") != "bash":
        problems.append("defaults: run: shell: bash, or what fails in a pipe is overlooked")
    if "concurrency" not in workflow:
        problems.append("concurrency: say what runs beside what")
    for name, job in workflow["jobs"].items():
        if isinstance(job.get("permissions"), str):
            problems.append(f"{name}: permissions are named one by one")
        if "timeout-minutes" not in job and "uses" not in job:
            problems.append(f"{name}: timeout-minutes")
        for step in job.get("steps", ()):
            kept = str(step.get("with", {}).get("persist-credentials", "")) != "False"
            if step.get("uses", "").startswith("actions/checkout@") and kept:
                problems.append(f"{name}: persist-credentials: false, or each later step has the token")
    return [at(path, 1, problem) for problem in problems]


def test_every_action_is_pinned_by_commit_and_says_its_version() -> None:
    paths = sorted(WORKFLOWS.iterdir())
    assert [problem for path in paths for problem in unpinned(path)] == []
    assert at_two_versions(paths) == []


def test_no_workflow_may_do_more_than_it_needs() -> None:
    assert [problem for path in sorted(WORKFLOWS.iterdir()) for problem in loose(path)] == []


SAMPLE: Final = """\
on: [push]
permissions:
  contents: read
concurrency: sample
defaults: {run: {shell: bash}}
jobs:
  build:
    timeout-minutes: 5
    permissions:
      packages: write
    steps:
      - uses: actions/checkout@8e8c483db84b4bee98b60c0593521ed34d9990e8 # v6.0.1
        with:
          persist-credentials: false
      - uses: ./.github/actions/own
"""


@pytest.mark.parametrize(
    "spelled",
    [
        "actions/checkout@v6",
        "actions/checkout@8e8c483 # v6.0.1",
        "actions/checkout@8e8c483db84b4bee98b60c0593521ed34d9990e8",
        "actions/checkout@8e8c483db84b4bee98b60c0593521ed34d9990e8 # v6",
        "actions/checkout@main # v6.0.1",
    ],
)
def test_an_action_that_can_change_is_found(tmp_path: Path, spelled: str) -> None:
    sample = tmp_path / "sample.yml"
    sample.write_text(SAMPLE)
    assert unpinned(sample) == []
    sample.write_text(SAMPLE + f"      - uses: {spelled}\n")
    assert len(unpinned(sample)) == 1


def test_an_action_at_two_versions_is_found(tmp_path: Path) -> None:
    one, other = tmp_path / "one.yml", tmp_path / "other.yml"
    one.write_text(SAMPLE)
    other.write_text(SAMPLE.replace("8e8c483d", "11bd7190").replace("v6.0.1", "v4.2.2"))
    assert len(at_two_versions([one, other])) == 1


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("  contents: read", "  contents: write"),
        ("permissions:\n  contents: read", "permissions: read-all"),
        ("permissions:\n  contents: read\n", ""),
        ("on: [push]", "on: [pull_request_target]"),
        ("concurrency: sample\n", ""),
        ("defaults: {run: {shell: bash}}\n", ""),
        ("    timeout-minutes: 5\n", ""),
        ("    permissions:\n      packages: write", "    permissions: write-all"),
        ("persist-credentials: false", "fetch-depth: 0"),
    ],
)
def test_a_workflow_that_may_do_too_much_is_found(tmp_path: Path, written: str, instead: str) -> None:
    sample = tmp_path / "sample.yml"
    sample.write_text(SAMPLE)
    assert loose(sample) == []
    sample.write_text(SAMPLE.replace(written, instead))
    assert len(loose(sample)) == 1


def test_every_image_that_is_shipped_is_built_scanned_and_released() -> None:
    shipped = sorted(set(names()) - set(SERVERS))
    assert "agent" in shipped
    listed = " ".join(shipped)
    named = {
        "images.yml": (f"-m images {listed} ", f'.ci/scan-images "sha-$GITHUB_SHA" {listed}\n'),
        "security.yml": (f"-m images {listed} ", f".ci/scan-images scanned {listed}\n"),
        "release.yml": (f"service: [{', '.join(shipped)}]",),
    }
    texts = {name: (WORKFLOWS / name).read_text(encoding="utf-8") for name in named}
    assert [text for name, found in named.items() for text in found if text not in texts[name]] == []


def test_every_server_is_built_by_skaffold() -> None:
    servers = sorted(each.name for each in services() if each.answers_calls)
    skaffold = yaml.safe_load((ROOT / "skaffold.yaml").read_text(encoding="utf-8"))
    assert sorted(each["image"] for each in skaffold["build"]["artifacts"]) == [
        f"tlsy-{name}" for name in servers
    ]
