from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path

import pytest
import yaml

from tlsy.embedded.adapters.data_directory import SERVICES, DataDirectory, DataDirectoryInUseError


@pytest.fixture
def directory(tmp_path):
    made = DataDirectory(tmp_path / "data")
    made.open()
    yield made
    made.close()


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_second_suite_is_refused_until_the_first_has_closed_it(directory):
    with pytest.raises(DataDirectoryInUseError, match="a suite already runs on"):
        DataDirectory(directory.root).open()
    assert directory.sockets.is_dir()
    directory.close()
    again = DataDirectory(directory.root)
    again.open()
    again.close()


def test_nobody_else_reads_a_secret_or_reaches_a_socket(directory):
    directory.service_keys()
    directory.make_identity_keys(lambda: "{}")
    assert mode_of(directory.secrets) == 0o700
    assert {mode_of(path) for path in directory.secrets.iterdir()} == {0o600}
    assert mode_of(directory.service_sockets) == 0o700
    assert mode_of(directory.sockets) == (0o711 if os.geteuid() == 0 else 0o700)


def test_secrets_are_made_once(directory):
    first = {name: key.private_jwk for name, key in directory.service_keys().items()}
    assert {name: key.private_jwk for name, key in directory.service_keys().items()} == first
    assert set(first) == set(SERVICES)


def test_a_half_written_secret_is_made_anew(directory):
    (directory.secrets / "identity.new").write_text("half")
    directory.make_identity_keys(lambda: "whole")
    assert directory.identity_keys_file.read_text() == "whole"


def test_what_is_told_is_gone_when_it_is_closed(directory):
    directory.tell(["127.0.0.1:1"])
    told = json.loads(directory.run_file.read_text())
    assert (told["pid"], told["brokers"], set(told["services"])) == (
        os.getpid(),
        ["127.0.0.1:1"],
        set(SERVICES),
    )
    context = yaml.safe_load((directory.root / "context.yaml").read_text())
    assert context["contexts"][context["current"]]["api_key_file"] == str(directory.platform_key_file)
    assert context["contexts"]["embedded"]["start"] == f"python -m tlsy.embedded --data-dir {directory.root}"
    sockets = directory.sockets
    directory.close()
    assert not directory.run_file.exists()
    assert not sockets.exists()


@pytest.mark.parametrize(("name", "lasting"), [("d", True), ("d" * 90, False)])
def test_a_context_is_good_after_the_next_start_where_a_socket_s_path_may_be_so_long(name, lasting):
    with tempfile.TemporaryDirectory(prefix="te-") as folder:
        seen = []
        for _ in range(2):
            directory = DataDirectory(Path(folder) / name)
            directory.open()
            directory.tell([])
            context = yaml.safe_load(directory.context_file.read_text())["contexts"]["embedded"]
            address = Path(context["addresses"]["identity"].removeprefix("unix:"))
            assert address.resolve() == (directory.service_sockets / "identity").resolve()
            seen.append(address)
            directory.close()
    assert (seen[0] == seen[1]) is lasting


def test_a_context_that_was_added_is_there_after_the_next_start(directory):
    directory.tell([])
    told = yaml.safe_load(directory.context_file.read_text())
    contexts = {**told["contexts"], "ada": {"tenant": "shop", "user": "ada@shop.example"}}
    directory.context_file.write_text(
        yaml.safe_dump({"current": "ada", "contexts": {**contexts, "embedded": {}}})
    )
    directory.tell([])
    assert yaml.safe_load(directory.context_file.read_text()) == {"current": "ada", "contexts": contexts}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "a: b",
        "contexts: 1",
        "contexts: {}",
        "{contexts: {}, current: [ada]}",
        "current: ada",
        "current: 2026-13-45",
    ],
)
def test_contexts_that_cannot_be_read_are_made_anew(directory, text):
    directory.context_file.write_text(text)
    directory.tell([])
    told = yaml.safe_load(directory.context_file.read_text())
    assert (told["current"], set(told["contexts"])) == ("embedded", {"embedded"})


def test_what_a_killed_suite_left_is_gone_after_the_next_start(tmp_path):
    killed = DataDirectory(tmp_path / "data")
    killed.open()
    killed.tell([])
    left = killed.sockets
    assert killed._lock is not None
    killed._lock.close()  # as the kernel does when a process dies
    with_next = DataDirectory(tmp_path / "data")
    with_next.open()
    assert not left.exists()
    assert not with_next.run_file.exists()
    with_next.close()
