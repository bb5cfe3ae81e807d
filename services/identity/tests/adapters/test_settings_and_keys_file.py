from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tlsy.identity.adapters.secret_file import OwnerOnlyFile
from tlsy.identity.settings import IdentitySettings, new_keys_file, read_keys
from tlsy.runtime.settings import SettingsInvalid, load

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_keys_file_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(new_keys_file(os.urandom))
    keys = read_keys(path)
    assert len(keys.sealing[keys.current]) == 32
    assert keys.lookup.hex() not in repr(keys)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "JSONDecodeError"),
        ("[]", "current, sealing and lookup"),
        ('{"current": "k2", "sealing": {"k1": "c2hvcnQ="}}', "sealing.k1"),
        ('{"current": "k2", "sealing": {"k1": "c2hvcnQ="}}', "lookup"),
        ('{"current": "k2", "sealing": {"k1": "c2hvcnQ="}}', "current"),
    ],
)
def test_a_bad_keys_file_says_what_is_wrong_and_no_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(SettingsInvalid, match=said) as caught:
        read_keys(path)
    assert "c2hvcnQ=" not in str(caught.value)


@pytest.mark.parametrize(
    ("email", "of"),
    [
        ("root@example.org", ["BOOTSTRAP_ADMIN_PASSWORD", "LOCK_S"]),
        ("root", ["BOOTSTRAP_ADMIN_EMAIL", "BOOTSTRAP_ADMIN_PASSWORD", "LOCK_S"]),
        ("", ["LOCK_S"]),
    ],
)
def test_a_weak_first_password_is_refused_with_all_else_without_being_shown(
    tmp_path: Path, email: str, of: list[str]
) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load(
            IdentitySettings,
            keys_file=tmp_path / "keys.json",
            bootstrap_admin_email=email,
            bootstrap_admin_password="canary",
            lock_s=0,
        )
    told = [problem.partition(":")[0] for problem in caught.value.problems]
    assert told == [f"TLSY_IDENTITY_{name}" for name in of]
    assert "canary" not in str(caught.value)


def test_a_secret_file_is_its_owners_alone_and_there_once_published(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for secret in ("first", "second"):
        OwnerOnlyFile(path).prepare(secret)
        assert not path.exists()
    OwnerOnlyFile(path).publish()
    OwnerOnlyFile(path).publish()
    assert path.read_text() == "second\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
