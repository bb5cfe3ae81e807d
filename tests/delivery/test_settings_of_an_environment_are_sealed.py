"""What an environment sets is in the repository only sealed; whoever holds a key can open and change it."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.architecture.test_environments import clear_lines
from tlsy.identity.settings import IdentitySettings
from tlsy.runtime.environment import HostSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
_SETTING: Final = re.compile(r"^([A-Z0-9_]+)=", re.MULTILINE)


def test_every_name_in_the_example_is_a_setting():
    known = {
        f"{settings.model_config['env_prefix']}{name}".upper()
        for settings in (HostSettings, IdentitySettings)
        for name in settings.model_fields
    }
    assert set(_SETTING.findall((ROOT / ".env.example").read_text())) - known == set()


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_the_sealed_ones_set_what_the_example_does_for_whom_the_rules_name(name):
    sealed = (ROOT / f".env.{name}").read_text()
    names = [each for each in _SETTING.findall(sealed) if not each.startswith("sops_")]
    assert names == _SETTING.findall((ROOT / ".env.example").read_text())
    (rule,) = re.findall(rf"\.env\\.{name}\$\n    age: (.+)", (ROOT / ".sops.yaml").read_text())
    assert re.findall(r"^sops_age__list_\d+__map_recipient=(.+)$", sealed, re.MULTILINE) == rule.split(",")


class Environment:
    """A folder with the example, a home without keys, and `.ci/env` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (".env.example", ".sops.yaml"):
            shutil.copy(ROOT / name, folder / name)
        unset = ("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_RECIPIENTS")
        clean = {name: value for name, value in os.environ.items() if name not in unset}
        self._environ = {**clean, "ROOT": str(folder), "XDG_CONFIG_HOME": str(folder / "config")}

    def run(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / ".ci" / "env", *arguments],
            env={**self._environ, **environ},
            stdin=stdin,
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
def test_who_has_no_key_yet_gets_one_and_is_told_whom_to_send_it(environment):
    mine, recipient = environment.key("mine")
    environment.run("init", "staging", recipient)
    refused = environment.run("edit", "staging", EDITOR="true")
    (own,) = re.findall(r"age1\w+", (environment.folder / "config/sops/age/keys.txt").read_text())
    assert refused.returncode == 1
    assert f"make env-init ENV=staging RECIPIENT={own},<theirs>" in refused.stderr
    both = environment.run("init", "staging", f"{own}, {recipient}", SOPS_AGE_KEY_FILE=str(mine))
    assert (both.returncode, "nobody here" in both.stderr) == (0, False), both.stderr
    assert environment.run("show", "staging").returncode == 0


@pytest.mark.real
def test_who_seals_it_for_others_alone_is_told(environment):
    _, recipient = environment.key("theirs")
    sealed = environment.run("init", "staging", recipient)
    assert sealed.returncode == 0
    assert "nobody here can open .env.staging any more" in sealed.stderr


@pytest.mark.real
def test_nobody_is_locked_out_by_leaving_them_unnamed(environment):
    _, recipient = environment.key("mine")
    environment.run("init", "prod", recipient)
    refused = environment.run("init", "prod")
    assert refused.returncode == 1
    assert "name everybody who is to open it" in refused.stderr


@pytest.mark.real
@pytest.mark.parametrize("name", ["local", "staging", "prod"])
def test_editing_is_all_that_makes_one(environment, name):
    ran = environment.run("edit", name, EDITOR="sed -i s/LEVEL=info/LEVEL=debug/")
    assert ran.returncode == 0, ran.stderr
    (key,) = environment.folder.glob("config/sops/age/keys.txt")
    assert key.stat().st_mode & 0o077 == 0
    (recipient,) = re.findall(r"age1\w+", key.read_text())
    assert clear_lines(environment.folder / f".env.{name}") == []
    assert environment.run("show", name).stdout == (ROOT / ".env.example").read_text().replace(
        "=info", "=debug"
    )
    committed = recipient in (environment.folder / ".sops.yaml").read_text()
    assert committed == (name != "local") == (f"commit .env.{name} and .sops.yaml" in ran.stderr)
    assert environment.run("edit", name, EDITOR="true").stderr.endswith("env: nothing was changed\n")


@pytest.mark.real
def test_a_deployment_is_not_given_what_only_the_example_sets(environment):
    key, recipient = environment.key("mine")
    environment.run("init", "staging", recipient)
    opener = {"SOPS_AGE_KEY": key.read_text()}
    refused = environment.run("give", "staging", **opener)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert (
        "lead nowhere: TLSY_CLUSTERS TLSY_BROKERS TLSY_OTLP_ENDPOINT; make env-edit ENV=staging"
        in refused.stderr
    )
    environment.run("edit", "staging", EDITOR="sed -i s/example.internal/bank.internal/", **opener)
    given = environment.run("give", "staging", **opener)
    assert given.stdout == environment.run("show", "staging", **opener).stdout
    assert "bank.internal" in given.stdout


@pytest.mark.real
def test_an_editor_that_fails_leaves_nothing_in_clear(environment):
    ran = environment.run("edit", "prod", EDITOR="false")
    assert (ran.returncode, "nothing was changed: see what EDITOR (false)" in ran.stderr) == (1, True)
    assert clear_lines(environment.folder / ".env.prod") == []


@pytest.fixture
def terminal() -> Iterator[int]:
    """One at which Enter was pressed."""
    person, end = pty.openpty()
    os.write(person, b"\n")
    yield end
    os.close(person)
    os.close(end)


@pytest.mark.real
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("TLSY_LOG_LEVEL", "neither NAME=value nor a # comment"),
        ("export TLSY_LOG_LEVEL=debug", "neither NAME=value nor a # comment"),
        ("sops_version=1", "for SOPS alone"),
    ],
)
def test_a_broken_line_is_named_and_nothing_is_changed(environment, broken, said):
    environment.run("init", "local")
    before = (environment.folder / ".env.local").read_bytes()
    ran = environment.run("edit", "local", EDITOR=f"sed -i '2i {broken}'")
    assert ran.returncode == 1
    assert re.search(rf"env: line 2\b.* {said}\n", ran.stderr)
    assert (environment.folder / ".env.local").read_bytes() == before


@pytest.mark.real
@pytest.mark.parametrize(("second", "status"), [("s/^broken$/MENDED=1/", 0), ("s/^broken$/broken/", 1)])
def test_at_a_terminal_a_broken_line_may_be_mended(environment, terminal, second, status):
    editor = f"sed -i -e '1{second}' -e t -e '1i broken'"
    ran = environment.run("edit", "local", stdin=terminal, EDITOR=editor)
    assert ran.returncode == status, ran.stderr
    assert ("MENDED=1\n" in environment.run("show", "local").stdout) == (status == 0)


@pytest.mark.real
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "prod"], "there is no .env.prod yet: make env-edit ENV=prod"),
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
