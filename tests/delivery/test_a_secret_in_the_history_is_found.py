"""gitleaks, as `make check-delivery` runs it, finds what was committed, also if it was removed again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
#: In two parts, so that none is written here.
SECRETS: Final = {
    "API key of this product": ("tlsy", "_" + "0f" * 16 + "_" + "1e" * 16 + "_" + "2d" * 32),
    "GitHub token": ("ghp_", "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx"),
}


class Repository:
    """A repository of its own, looked through by the project's rules."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._git("init", "--quiet")

    def commit(self, name: str, text: str | None) -> None:
        """Writes a file, or removes it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        self._git("add", "--all")
        self._git("-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "--message=c")

    def is_clean(self) -> bool:
        program = subprocess.run(
            [ROOT / ".ci" / "tool", "gitleaks"], capture_output=True, text=True, check=True, timeout=1800
        ).stdout.strip()
        ran = subprocess.run(
            [program, "git", f"--config={ROOT / '.gitleaks.toml'}", "--no-banner", "--redact", self.folder],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode in {0, 1}, ran.stderr
        return ran.returncode == 0

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", self.folder, *arguments], check=True, timeout=20)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.mark.real
@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_that_was_removed_again_is_found(repository, kind):
    repository.commit("settings.yaml", "level: info\n")
    assert repository.is_clean()
    repository.commit("settings.yaml", f"key: {''.join(SECRETS[kind])}\n")
    repository.commit("settings.yaml", None)
    assert not repository.is_clean()


@pytest.mark.real
def test_what_is_allowed_in_one_place_is_found_in_another(repository):
    shaped = "eyJhbGciOiJFUzI1NiJ9." + "e30.c2ln"
    repository.commit("libs/runtime/tests/test_logs.py", f'token = "{shaped}"\n')
    assert repository.is_clean()
    repository.commit("services/settings.py", f'token = "{shaped}"\n')
    assert not repository.is_clean()
