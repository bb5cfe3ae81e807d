from __future__ import annotations

import json
import stat

import pytest


async def test_contexts_are_added_changed_and_chosen(tlsy):
    tlsy.config.unlink()
    await tlsy("context", "add", "a", "--address", "a:443", "--tls")
    await tlsy("context", "add", "b", "--address", "b:443", "--default-tenant", "acme")
    await tlsy("context", "use", "b")
    await tlsy("context", "add", "b", "--user", "ada@acme.fr")
    rows = (await tlsy("context", "list", "-o", "json")).json
    assert [(row["name"], row["inUse"]) for row in rows] == [("a", False), ("b", True)]
    shown = (await tlsy("context", "show", "-o", "json")).json
    assert shown == {"name": "b", "tenant": "acme", "address": "b:443", "user": "ada@acme.fr"}
    assert (await tlsy("context", "show", "a", "-o", "json")).json["tls"] == {}
    assert stat.S_IMODE(tlsy.config.stat().st_mode) == 0o600


async def test_the_folder_that_is_made_for_it_is_its_owners_alone(tlsy, tmp_path):
    made = tmp_path / "made"
    tlsy.environ["TLSY_CONFIG"] = str(made / "config.yaml")
    await tlsy("context", "add", "a", "--address", "a:443")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


async def test_an_edge_that_is_given_stands_for_all_services(tlsy):
    tlsy.context(addresses={"identity": "old:1", "ingestion": "old:2"})
    await tlsy("context", "add", "c", "--address", "edge:443", "--service-address", "ingestion=new:2")
    shown = (await tlsy("context", "show", "-o", "json")).json
    assert shown == {"name": "c", "address": "edge:443", "addresses": {"ingestion": "new:2"}}


async def test_a_context_is_copied_from_another_file_with_its_paths(tlsy, stand_in, tmp_path):
    other = tmp_path / "data" / "context.yaml"
    other.parent.mkdir()
    (other.parent / "bootstrap.key").write_text("tlsy_key")
    members = f"{{address: '{stand_in.target}', api_key_file: bootstrap.key}}"
    other.write_text(f"current: embedded\ncontexts:\n  embedded: {members}\n")
    tlsy.config.unlink()
    await tlsy("context", "add", "here", "--from", str(other))
    assert (await tlsy("tenants", "list", "--context", "here")).code == 0


@pytest.mark.parametrize(
    ("given", "tenant"),
    [
        (["--api-key-file", "till.key"], None),
        (["--api-key-file", "till.key", "--default-tenant", "kiosk"], "kiosk"),
        # Logging in takes a tenant.
        (["--user", "ada@acme.fr"], "platform"),
        ([], "platform"),
    ],
)
async def test_the_tenant_of_a_key_is_not_copied_for_another_key(tlsy, tmp_path, monkeypatch, given, tenant):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "till.key").write_text("tlsy_key")
    other = tmp_path / "other.yaml"
    other.write_text(
        "current: a\ncontexts: {a: {address: 'a:1', tenant: platform, api_key_file: admin.key}}\n"
    )
    (tmp_path / "admin.key").write_text("tlsy_key")
    added = await tlsy("context", "add", "w", "--from", str(other), *given, "-o", "json")
    assert added.json.get("tenant") == tenant


@pytest.mark.parametrize("option", ["--api-key-file", "--ca-file"])
async def test_a_file_that_cannot_be_read_is_told_and_nothing_is_written(tlsy, tmp_path, option):
    before = tlsy.config.read_text()
    missing = tmp_path / "missing"
    result = await tlsy("context", "add", "d", "--address", "d:1", option, str(missing))
    assert (result.code, f"{missing} cannot be read: No such file" in result.err) == (2, True)
    assert tlsy.config.read_text() == before


async def test_a_context_that_is_not_there_is_told_with_those_that_are(tlsy):
    result = await tlsy("tenants", "list", "--context", "nope")
    assert result.code == 2
    assert "Choose one of: c." in result.err


async def test_every_problem_of_the_file_is_told(tlsy):
    tlsy.config.write_text("current: x\ncontexts: {a: {adress: b}, b: {addresses: {billing: c}}}\n")
    result = await tlsy("tenants", "list")
    assert result.code == 2
    assert len(result.err.splitlines()) == 6


async def test_user_and_key_exclude_each_other(tlsy, tmp_path):
    both = await tlsy("context", "add", "d", "--address", "d:1", "--user", "a@b.c", "--api-key-file", "k")
    assert (both.code, "exclude each other" in both.err) == (2, True)
    tlsy.context(address="d:1", user="a@b.c", api_key_file="k")
    result = await tlsy("context", "list")
    assert (result.code, "contexts.c: has both user and api_key_file" in result.err) == (2, True)


async def test_a_context_is_renamed_and_stays_in_use(tlsy):
    await tlsy("context", "add", "other", "--address", "o:1")
    assert (await tlsy("context", "rename", "c", "new")).code == 0
    rows = (await tlsy("context", "list", "-o", "json")).json
    assert [(row["name"], row["inUse"]) for row in rows] == [("new", True), ("other", False)]
    taken = await tlsy("context", "rename", "new", "other")
    assert (taken.code, "There is a context other." in taken.err) == (2, True)


async def test_a_deleted_context_is_gone_with_its_tokens(tlsy, tmp_path):
    await tlsy("rules", "list")
    assert json.loads((tmp_path / "tokens.json").read_text())
    assert (await tlsy("context", "delete", "c")).code == 0
    assert json.loads((tmp_path / "tokens.json").read_text()) == {}
    result = await tlsy("rules", "list")
    assert (result.code, "No context is in use." in result.err) == (2, True)
    assert (await tlsy("context", "delete", "c")).code == 2


def no_home():
    raise RuntimeError("Could not determine home directory.")


async def test_who_has_no_home_is_told_what_to_set(tlsy):
    tlsy.environ, tlsy.home = {}, no_home
    for args in (["whoami"], ["doctor"], ["context", "add", "a", "--address", "a:1"]):
        result = await tlsy(*args)
        assert (result.code, "no home directory" in result.err) == (2, True)
        assert "Set HOME, or let TLSY_CONFIG name a contexts file." in result.err


async def test_who_names_a_contexts_file_needs_no_home(tlsy):
    tlsy.home = no_home
    assert (await tlsy("rules", "list")).code == 0
    assert (await tlsy("doctor")).code == 0


async def test_a_context_that_is_there_twice_is_told_with_its_line(tlsy):
    tlsy.config.write_text("contexts:\n  a: {address: 'a:1'}\n  a: {address: 'b:1'}\n")
    result = await tlsy("context", "list")
    assert (result.code, f"{tlsy.config}:3: 'a' is there since line 2" in result.err) == (2, True)


async def test_a_contexts_file_that_is_a_link_stays_one(tlsy, tmp_path):
    kept = tmp_path / "kept" / "contexts.yaml"
    kept.parent.mkdir()
    tlsy.config.rename(kept)
    tlsy.config.symlink_to("kept/contexts.yaml")
    assert (await tlsy("context", "rename", "c", "new")).code == 0
    assert tlsy.config.is_symlink()
    assert "new:" in kept.read_text()
