"""What an environment sets is in the repository only sealed; whoever holds a key can open and change it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tlsy.identity.settings import IdentitySettings
from tlsy.runtime.environment import HostSettings

ROOT: Final = Path(__file__).parents[2]
#: SOPS leaves what is empty as it is; a comment is sealed too.
_SEALED: Final = re.compile(r"#?[A-Z0-9_]*=?(ENC\[AES256_GCM,.+\])?|sops_\w+=.*")
_SETTING: Final = re.compile(r"^([A-Z0-9_]+)=", re.MULTILINE)


def clear_lines(path: Path) -> list[str]:
    """Lines that anybody can read."""
    lines = path.read_text(encoding="utf-8").splitlines()
    sealed = any(line.startswith("sops_mac=") for line in lines)
    return [line for line in lines if not sealed or not _SEALED.fullmatch(line)]


def test_no_environment_is_in_the_repository_in_clear():
    listed = subprocess.run(
        ["git", "ls-files", ".env*"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    ).stdout.split()
    sealed = [ROOT / name for name in listed if name != ".env.example"]
    assert [line for path in sealed for line in clear_lines(path)] == []


def test_a_value_in_clear_is_found(tmp_path):
    sample = tmp_path / ".env.prod"
    enc = "ENC[AES256_GCM,data:A=]"
    sealed = f"#{enc}\nTLSY_A={enc}\nTLSY_B=\nsops_mac={enc}\n"
    sample.write_text(sealed)
    assert clear_lines(sample) == []
    sample.write_text(f"{sealed}TLSY_C=clear\n")
    assert clear_lines(sample) == ["TLSY_C=clear"]
    sample.write_text("TLSY_A=clear\n")
    assert clear_lines(sample) == ["TLSY_A=clear"]


def test_every_name_in_the_example_is_a_setting():
    known = {
        f"{settings.model_config['env_prefix']}{name}".upper()
        for settings in (HostSettings, IdentitySettings)
        for name in settings.model_fields
    }
    assert set(_SETTING.findall((ROOT / ".env.example").read_text())) - known == set()


class Environment:
    """A folder with the example, a home without keys, and `.ci/env` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (".env.example", ".sops.yaml"):
            shutil.copy(ROOT / name, folder / name)
        unset = ("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_RECIPIENTS")
        clean = {name: value for name, value in os.environ.items() if name not in unset}
        self._environ = {**clean, "ROOT": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / ".ci" / "env", *arguments],
            env={**self._environ, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )

    def key(self, name: str) -> tuple[Path, str]:
        """A throw-away key: where it is, and its recipient."""
        keygen = subprocess.run(
            [ROOT / ".ci" / "tool", "age-keygen"], capture_output=True, text=True, check=True, timeout=1800
        ).stdout.strip()
        path = self.folder / name
        said = subprocess.run([keygen, "-o", path], capture_output=True, text=True, check=True, timeout=20)
        return path, said.stderr.split()[-1]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


@pytest.mark.real
def test_what_is_sealed_opens_with_its_key_and_no_other(environment):
    key, recipient = environment.key("mine")
    stranger, _ = environment.key("other")
    assert environment.run("init", "staging", recipient).returncode == 0
    assert clear_lines(environment.folder / ".env.staging") == []
    opened = environment.run("show", "staging", SOPS_AGE_KEY=key.read_text())
    assert opened.stdout == (ROOT / ".env.example").read_text()
    refused = environment.run("show", "staging", SOPS_AGE_KEY_FILE=str(stranger))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "ask who can open it" in refused.stderr


@pytest.mark.real
def test_what_is_changed_is_sealed_again(environment):
    key, recipient = environment.key("mine")
    environment.run("init", "prod", recipient)
    opener = {"SOPS_AGE_KEY_FILE": str(key), "EDITOR": "sed -i s/LEVEL=info/LEVEL=debug/"}
    assert environment.run("edit", "prod", **opener).returncode == 0
    assert clear_lines(environment.folder / ".env.prod") == []
    assert "TLSY_LOG_LEVEL=debug\n" in environment.run("show", "prod", **opener).stdout


@pytest.mark.real
def test_who_leaves_opens_nothing_that_is_sealed_afterwards(environment):
    mine, recipient = environment.key("mine")
    theirs, other = environment.key("theirs")
    environment.run("init", "prod", f"{recipient},{other}")
    assert environment.run("show", "prod", SOPS_AGE_KEY_FILE=str(theirs)).returncode == 0
    assert environment.run("init", "prod", recipient, SOPS_AGE_KEY_FILE=str(mine)).returncode == 0
    assert environment.run("show", "prod", SOPS_AGE_KEY_FILE=str(theirs)).returncode == 1
    assert environment.run("show", "prod", SOPS_AGE_KEY_FILE=str(mine)).returncode == 0
    assert other not in (environment.folder / ".sops.yaml").read_text()


@pytest.mark.real
def test_nobody_is_locked_out_by_leaving_them_unnamed(environment):
    _, recipient = environment.key("mine")
    environment.run("init", "prod", recipient)
    refused = environment.run("init", "prod")
    assert refused.returncode == 1
    assert "name everybody who is to open it" in refused.stderr


@pytest.mark.real
def test_the_first_use_on_a_machine_makes_its_key_and_its_own_settings(environment):
    assert environment.run("edit", "local", EDITOR="true").returncode == 0
    assert environment.run("show", "local").stdout == (ROOT / ".env.example").read_text()
    (key,) = environment.folder.glob("config/sops/age/keys.txt")
    assert key.stat().st_mode & 0o077 == 0


@pytest.mark.real
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "prod"], "there is no .env.prod yet: make env-init ENV=prod"),
        (["edit", "../etc"], "ENV is local, staging or prod"),
        (["init", "prod", "nobody"], "'nobody' is no age recipient"),
        (["init", "prod", "age1qqqq"], "not sealed"),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(environment, arguments, said):
    ran = environment.run(*arguments)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert sorted(environment.folder.glob(".env.*")) == [environment.folder / ".env.example"]
