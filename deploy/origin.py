"""`python -m deploy.origin OWNER/REPOSITORY RUN`: prints the commit that a run of images.yml published.

Deployed to an environment is what that workflow made of a commit of main, and nothing else: neither what
another run left, such as that of a pull request, nor an image pushed by hand, nor one of somebody else.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from deploy.manifests import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from deploy.manifests import Document

WORKFLOW: Final = ".github/workflows/images.yml"
_ISSUER: Final = "https://token.actions.githubusercontent.com"
#: What is attested of an image: where it comes from, and what it consists of.
_ATTESTED: Final = ("https://slsa.dev/provenance/v1", "https://cyclonedx.org/bom")
_TIMEOUT_S: Final = 120


class UnknownOriginError(Exception):
    """It is not shown where something comes from; the message says what is not."""


def call(command: Sequence[str]) -> str:
    """What gh or cosign prints.

    Raises:
        UnknownOriginError: it fails, is missing, or hangs.
    """
    try:
        ran = subprocess.run(  # noqa: S603 - programs of this machine with arguments of our own
            command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise UnknownOriginError(f"{' '.join(command[:3])}: {said.strip()}") from error
    return ran.stdout


@dataclass(frozen=True, slots=True)
class Origin:
    """A commit of a repository's main, whose images its workflow signed and attested.

    Attributes:
        repository: OWNER/NAME.
        commit: 40 digits.
        call: runs gh and cosign.
    """

    repository: str
    commit: str
    call: Callable[[Sequence[str]], str] = call

    def check(self, documents: Iterable[Document]) -> None:
        """Returns if every image that is named in these manifests is of this commit.

        Raises:
            RefusedError: with what does not show it.
        """
        images = images_of(documents)
        problems = [] if images else ["the manifests name no image"]
        for image in images:
            try:
                self._verify(image)
            except UnknownOriginError as error:
                problems.append(f"{image}: {error}")
        if problems:
            raise RefusedError(problems)

    def _verify(self, image: str) -> None:
        owner = re.escape(self.repository.partition("/")[0].lower())
        if not re.fullmatch(rf"ghcr\.io/{owner}/tlsy-[a-z0-9-]+@sha256:[0-9a-f]{{64}}", image):
            raise UnknownOriginError(f"is not one of {self.repository}'s own, named by digest")
        signer = f"{self.repository}/{WORKFLOW}"
        self.call(
            (
                *("cosign", "verify", image, "--certificate-oidc-issuer", _ISSUER),
                *("--certificate-identity", f"https://github.com/{signer}@refs/heads/main"),
                *("--certificate-github-workflow-sha", self.commit),
            )
        )
        for predicate in _ATTESTED:
            self.call(
                (
                    *("gh", "attestation", "verify", f"oci://{image}", "--repo", self.repository),
                    *("--signer-workflow", signer, "--predicate-type", predicate),
                    *("--source-ref", "refs/heads/main", "--source-digest", self.commit),
                    "--deny-self-hosted-runners",
                )
            )


def images_of(documents: Iterable[Document]) -> list[str]:
    """Every image that is named in manifests, in workloads and in what operators are told."""
    # The definition of a custom resource has fields of that name, and runs nothing.
    ran = (each for each in documents if each["kind"] != "CustomResourceDefinition")
    return sorted({image for each in ran for image in _named(each)})


def _named(part: Any, key: str = "") -> Iterator[str]:
    if isinstance(part, dict) and key == "image":
        # A volume made of an image; what only an operator could put together is nobody's name.
        yield str(part.get("reference", part))
    elif isinstance(part, dict):
        for name, value in part.items():
            yield from _named(value, name)
    elif isinstance(part, list):
        for value in part:
            yield from _named(value, key)
    elif isinstance(part, str) and (key == "image" or "@sha256:" in part):
        yield part


def commit_of(run: Mapping[str, Any], repository: str) -> str:
    """The commit of main that this run published, of what GitHub tells of a run.

    Raises:
        UnknownOriginError: with all that speaks against it.
    """
    wanted = {
        "path": WORKFLOW,
        "event": "push",
        "head_branch": "main",
        "head_repository": repository,
        "status": "completed",
        "conclusion": "success",
    }
    told = {name: run.get(name) for name in wanted}
    told["path"] = str(told["path"]).partition("@")[0]
    told["head_repository"] = (run.get("head_repository") or {}).get("full_name")
    wrong = [f"{name} is {told[name]}, not {value}" for name, value in wanted.items() if told[name] != value]
    if wrong:
        raise UnknownOriginError(f"run {run.get('id')} did not publish a commit of main: {'; '.join(wrong)}")
    return str(run["head_sha"])


def published(repository: str, run: str, call: Callable[[Sequence[str]], str] = call) -> str:
    """The commit of main that a run published, if main still has it.

    Raises:
        UnknownOriginError: it published none.
    """
    if not re.fullmatch(r"[0-9]+", run):
        raise UnknownOriginError(f"'{run}' is not the number of a run")
    commit = commit_of(json.loads(call(("gh", "api", f"repos/{repository}/actions/runs/{run}"))), repository)
    compared = json.loads(call(("gh", "api", f"repos/{repository}/compare/{commit}...main")))
    if compared.get("status") not in {"ahead", "identical"}:
        raise UnknownOriginError(f"main does not have {commit} any longer")
    return commit


def main() -> int:
    """Returns 1 if the run is none whose images may be deployed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.origin", description=__doc__)
    parser.add_argument("repository", metavar="OWNER/REPOSITORY")
    parser.add_argument("run")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(f"{published(arguments.repository, arguments.run)}\n")
    except UnknownOriginError as error:
        sys.stderr.write(f"origin: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
