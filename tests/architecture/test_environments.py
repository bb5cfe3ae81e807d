"""What an environment sets is never under version control in clear, nor about to be."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Final

from tests.architecture.tree import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: SOPS leaves what is empty as it is; a comment is sealed too.
_SEALED: Final = re.compile(r"#?[A-Z0-9_]*=?(ENC\[AES256_GCM,.+\])?|sops_\w+=.*")


def clear_lines(path: Path) -> list[str]:
    """Lines that anybody can read."""
    lines = path.read_text(encoding="utf-8").splitlines()
    sealed = any(line.startswith("sops_mac=") for line in lines)
    return [line for line in lines if not sealed or not _SEALED.fullmatch(line)]


def in_clear(root: Path) -> list[str]:
    """Files of environments, but the example, that git has or would take and that anybody can read."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", ".env*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.split()
    return [
        name
        for name in sorted(set(listed) - {".env.example"})
        if (root / name).exists() and clear_lines(root / name)
    ]


def test_no_environment_is_in_the_repository_in_clear() -> None:
    assert in_clear(ROOT) == []


def test_one_that_is_about_to_be_committed_in_clear_is_found(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, timeout=20)
    for name in (".gitignore", ".env.example"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    for name in (".env.local", ".env.prod", ".env.prod.new"):
        (tmp_path / name).write_text("TLSY_A=clear\n")
    assert in_clear(tmp_path) == [".env.prod"]


def test_a_value_in_clear_is_found(tmp_path: Path) -> None:
    sample = tmp_path / ".env.prod"
    enc = "ENC[AES256_GCM,data:A=]"
    sealed = f"#{enc}\nTLSY_A={enc}\nTLSY_B=\nsops_mac={enc}\n"
    sample.write_text(sealed)
    assert clear_lines(sample) == []
    sample.write_text(f"{sealed}TLSY_C=clear\n")
    assert clear_lines(sample) == ["TLSY_C=clear"]
    sample.write_text("TLSY_A=clear\n")
    assert clear_lines(sample) == ["TLSY_A=clear"]
