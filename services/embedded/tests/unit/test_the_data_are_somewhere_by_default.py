from __future__ import annotations

from pathlib import Path

from tlsy.embedded.settings import default_data_dir


def home():
    return Path("/home/ada")


def no_home():
    raise RuntimeError("Could not determine home directory.")


def test_data_are_the_users_own():
    assert default_data_dir(1000, {}, home) == Path("/home/ada/.local/share/tlsy")
    assert default_data_dir(1000, {"XDG_DATA_HOME": "/data"}, no_home) == Path("/data/tlsy")
    assert default_data_dir(0, {}, home) == Path("/var/lib/tlsy/suite")


def test_who_has_no_home_has_them_where_the_program_was_started():
    assert default_data_dir(1000, {}, no_home) == Path("tlsy")
