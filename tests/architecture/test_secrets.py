"""No secret is in a file that is, or is about to be, under version control."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

import pytest

from tests.architecture.secrets_in_text import (
    KINDS,
    NAMED,
    Allowed,
    Found,
    allowed,
    fingerprint,
    problems,
    secrets_of,
)
from tests.architecture.test_text import tracked_text
from tests.architecture.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED: Final = ROOT / "tests" / "architecture" / "allowed_secrets.toml"

#: One of each kind, in two parts, so that none is written here.
SAMPLES: Final = {
    "private key": (
        "-----BEGIN EC PRIVATE",
        " KEY-----\nMHcCAQEEIIGlVGqH0J3l4dYbH5W8vYy0cQmH3eHkPzT1nRr0t6sBoAoGCCqG",
    ),
    "age key": ("AGE-SECRET-", "KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"),
    "API key of this product": ("tlsy", "_" + "0f" * 16 + "_" + "1e" * 16 + "_" + "2d" * 32),
    "AWS key": ("AKIA", "2E0A8F3B244C9986"),
    "GitHub token": ("ghp_", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx"),
    "GitLab token": ("glpat-", "9xVbYq3LmNzR7tKc2WsD"),
    "Slack token": ("xoxb-", "263594206564-FGqddMF8t08v8N7Oq4i57vs1"),
    "Stripe key": ("sk_live_", "51H8xYzKq3LmNzR7tKc2WsD"),
    "Google key": ("AIza", "SyD4vB9xVbYq3LmNzR7tKc2WsD1fGhJkLp0"),
    "SendGrid key": ("SG.", "ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf-09kqeF8tAmbihYzrnopKc-1s5cr"),
    "model provider's key": ("sk-", "ant-9xVbYq3LmNzR7tKc2WsD1fGhJkLp0QwErTyUiOpAsDf"),
    "package registry's token": ("npm_", "9xVbYq3LmNzR7tKc2WsD1fGhJkLp0QwErTyU"),
    "Sentry DSN": ("https://", "0f1e2d3c4b5a69788796a5b4c3d2e1f0@sentry.example.com/42"),
    "signed token": (
        "eyJ",
        "hbGciOiJFUzI1NiJ9.eyJzdWIiOiJzb21lYm9keSJ9." + "Qm9sZCBtb3ZlIHRvIHNpZ24gdGhpcyBieSBoYW5k",
    ),
    "client key of a kubeconfig": (
        "client-key-",
        "data: cGFydCBvZiBhIGtleSB0aGF0IG9wZW5zIG5vdGhpbmcgYXQgYWxs",
    ),
    "password in a URL": ("postgresql://", "tlsy:9xVbYq3Lm@db.example.com/tlsy"),
    NAMED: ("db_password", ": 9xVbYq3LmNzR7tKc2WsD"),
}


def found_below(root: Path) -> list[Found]:
    """In every file of a repository that git does not ignore."""
    return [
        found
        for path in tracked_text(root)
        if path != ALLOWED
        for found in secrets_of(
            str(path.relative_to(root)), path.read_text(encoding="utf-8", errors="replace")
        )
    ]


def test_no_secret_is_in_the_repository() -> None:
    assert problems(found_below(ROOT), allowed(ALLOWED)) == []


def test_a_secret_planted_in_a_repository_is_found(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, timeout=20)
    planted = "".join(SAMPLES["age key"])
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "key.txt").write_text(f"# created: today\n{planted}\n")
    (tmp_path / ".gitignore").write_text("ignored.txt\n")
    (tmp_path / "ignored.txt").write_text(planted)
    assert [str(each) for each in found_below(tmp_path)] == [
        f"deploy/key.txt:2: age key, fingerprint {fingerprint(planted)}"
    ]


def test_each_kind_has_a_sample() -> None:
    assert set(SAMPLES) == {*KINDS, NAMED}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_planted_secret_is_found_and_not_repeated(kind: str) -> None:
    planted = "".join(SAMPLES[kind])
    (found,) = secrets_of("deploy.yaml", f"# a setting\n{planted}\n")
    assert (found.path, found.line, found.kind) == ("deploy.yaml", 2, kind)
    assert planted not in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "password = settings.password_file.read_text()",
        'token = "not-a-token-but-words"',
        "postgresql://{user}:{password}@{host}/db",
        "-----BEGIN PRIVATE KEY-----",
        "secret: ${SECRET_FROM_ELSEWHERE_2026}",
        "TLSY_DATABASE_PASSWORD=\nTLSY_OTHER_SETTING_2=k3Jd8sQpR7vXz1Lm",
        "TLSY_DATABASE_PASSWORD=ENC[AES256_GCM,data:p673w==,iv:YY=,aad:UQ=,tag:A=]",
    ],
)
def test_what_is_no_secret_is_none(text: str) -> None:
    assert list(secrets_of("sample.py", text)) == []


def test_what_is_allowed_has_a_reason_and_is_there(tmp_path: Path) -> None:
    planted = "".join(SAMPLES["AWS key"])
    (found,) = secrets_of("sample.py", planted)
    entry = Allowed("sample.py", fingerprint(planted), "of the vendor's documentation")
    assert problems([found], [entry]) == []
    assert problems([], [entry]) == [f"sample.py: {entry.fingerprint} is allowed and not there"]
    assert problems([found], []) == [f"sample.py:1: AWS key, fingerprint {entry.fingerprint}"]
    listed = tmp_path / "allowed.toml"
    listed.write_text('[[allowed]]\npath = "a"\nfingerprint = "b"\nreason = " "\n')
    with pytest.raises(ValueError, match="no reason given for a"):
        allowed(listed)
