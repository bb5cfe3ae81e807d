from __future__ import annotations

import pytest
from pydantic import ValidationError, field_validator
from pydantic_settings import SettingsConfigDict

from tlsy.runtime.environment import HostSettings, read_clusters, read_trust
from tlsy.runtime.settings import ServiceSettings, SettingsInvalid, describe, load, setting, try_load


class ShopSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TLSY_SHOP_")

    batch_max: int = setting(100, unit="items", why="more would not fit", ge=1)
    door_code: str = setting(unit="", why="opens the door", secret=True, min_length=4)
    shelves: dict[str, int] = setting({}, unit="JSON", why="shelf to height")

    @field_validator("door_code")
    @classmethod
    def _is_no_common_one(cls, code: str) -> str:
        if code == "1234":
            raise ValueError("Everybody tries this one.")
        return code


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("TLSY_SHOP_DOOR_CODE", "secret")
    monkeypatch.setenv("TLSY_SHOP_SHELVES", '{"a": 2}')
    settings = load(ShopSettings)
    assert (settings.batch_max, settings.shelves) == (100, {"a": 2})


def test_all_problems_are_reported_with_what_to_do(monkeypatch):
    monkeypatch.setenv("TLSY_SHOP_BATCH_MAX", "0")
    monkeypatch.setenv("TLSY_SHOP_SHELVES", '{"a": "tall"}')
    with pytest.raises(SettingsInvalid) as raised:
        load(ShopSettings)
    assert len(raised.value.problems) == 3
    advice = "Set TLSY_SHOP_BATCH_MAX in items (default 100): more would not fit."
    assert any(problem.endswith(advice) for problem in raised.value.problems)
    assert any(problem.startswith("TLSY_SHOP_SHELVES[a]:") for problem in raised.value.problems)


@pytest.mark.parametrize("text", ["{", "", "a:1", "[1]"])
def test_json_that_is_none_is_a_problem_beside_the_others(monkeypatch, text):
    monkeypatch.setenv("TLSY_SHOP_SHELVES", text)
    with pytest.raises(SettingsInvalid) as raised:
        load(ShopSettings)
    code, shelves = raised.value.problems
    assert code.startswith("TLSY_SHOP_DOOR_CODE:")
    assert shelves.startswith("TLSY_SHOP_SHELVES:")
    assert "in JSON" in shelves


def test_a_problem_does_not_repeat_the_secret(monkeypatch):
    monkeypatch.setenv("TLSY_SHOP_DOOR_CODE", "abc")
    with pytest.raises(SettingsInvalid) as raised:
        load(ShopSettings)
    assert "abc" not in str(raised.value)


def test_a_problem_is_told_of_the_variable_that_the_value_came_from():
    problems: list[str] = []
    set_by = {"batch_max": "TLSY_TOWN_BATCH", "door_code": "TLSY_TOWN_CODE"}
    assert try_load(ShopSettings, problems, set_by=set_by, batch_max=0, door_code="abcd") is None
    (problem,) = problems
    assert problem.startswith("TLSY_TOWN_BATCH: ")
    assert problem.endswith("Set TLSY_TOWN_BATCH in items (default 100): more would not fit.")


def test_which_fields_are_wrong_is_known(monkeypatch):
    monkeypatch.setenv("TLSY_SHOP_BATCH_MAX", "0")
    with pytest.raises(SettingsInvalid) as raised:
        load(ShopSettings)
    assert raised.value.fields == {"batch_max", "door_code"}


def test_what_a_rule_of_our_own_says_is_told_in_its_own_words():
    with pytest.raises(SettingsInvalid) as raised:
        load(ShopSettings, door_code="1234")
    (problem,) = raised.value.problems
    assert problem.startswith("TLSY_SHOP_DOOR_CODE: Everybody tries this one. Set TLSY_SHOP_DOOR_CODE")


def test_a_secret_is_not_in_the_settings_text():
    assert "abcd" not in repr(load(ShopSettings, door_code="abcd"))


def test_settings_do_not_change():
    settings = load(ShopSettings, door_code="abcd")
    with pytest.raises(ValidationError):
        settings.batch_max = 2


def test_every_setting_is_described():
    docs = {doc.variable: doc for doc in describe(ShopSettings)}
    assert (docs["TLSY_SHOP_BATCH_MAX"].unit, docs["TLSY_SHOP_BATCH_MAX"].default) == ("items", "100")
    assert docs["TLSY_SHOP_DOOR_CODE"].default == "(required)"
    assert all(doc.why for doc in describe(HostSettings))


def test_a_cluster_added_while_we_run_is_found(tmp_path):
    files = {"service_key_file": tmp_path, "trust_dir": tmp_path, "clusters_dir": tmp_path}
    clusters = read_clusters(load(HostSettings, clusters={"eu-1": "postgresql://a"}, **files))
    with pytest.raises(KeyError):
        clusters["eu-2"]
    (tmp_path / "eu-2").write_text("postgresql://b\n")
    assert (clusters["eu-1"], clusters["eu-2"]) == ("postgresql://a", "postgresql://b")
    assert list(clusters) == ["eu-1", "eu-2"]


def test_a_folder_of_clusters_that_is_not_there_is_not_taken_for_an_empty_one(tmp_path):
    files = {"service_key_file": tmp_path, "trust_dir": tmp_path, "clusters_dir": tmp_path / "nowhere"}
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_clusters(load(HostSettings, **files))


@pytest.mark.parametrize("name", ["../secret", ".hidden", "a/b"])
def test_a_cluster_name_does_not_leave_the_directory(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / ".hidden").write_text("x")
    files = {"service_key_file": tmp_path, "trust_dir": tmp_path, "clusters_dir": tmp_path / "clusters"}
    with pytest.raises(KeyError):
        read_clusters(load(HostSettings, **files))[name]


def test_trust_that_is_not_there_is_not_taken_for_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_trust(tmp_path / "nowhere")


def test_trust_is_a_file_per_service(tmp_path):
    (tmp_path / "identity.json").write_text("{}")
    (tmp_path / "note.txt").write_text("x")
    assert read_trust(tmp_path) == {"identity": "{}"}
