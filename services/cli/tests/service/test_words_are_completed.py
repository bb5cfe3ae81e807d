from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tlsy.cli import app
from tlsy.cli.adapters.command_line import Program, command_line
from tlsy.cli.app import Process
from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2
from tlsy.contracts.tenant_registry.v1 import tenant_pb2, tenant_registry_pb2
from tlsy.rpc.errors import PermissionDenied

ID = "0192f0c1-2b3c-7d4e-8f50-617283940a1b"
OTHER_ID = "0192f0c1-2b3c-7d4e-8f50-617283940a1c"


def said_by(shell, line):
    """What a shell says of a command line that is being typed: its last word may have more to come."""
    position = len(line.split()) - (0 if line.endswith(" ") else 1)
    bash = {"COMP_WORDS": line, "COMP_CWORD": str(position)}
    others = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return {"_TLSY_COMPLETE": f"complete_{shell}", **(bash if shell == "bash" else others)}


@pytest.fixture
def typed(tmp_path, monkeypatch, capfd):
    """What bash is given, by the commands in this process."""

    async def complete(line):
        environ = {"TLSY_CONFIG": str(tmp_path / "config.yaml")}
        process = Process(environ=environ, home=Path.home, stdin=sys.stdin, out=sys.stdout, err=sys.stderr)
        program = Program(partial(app.execute, process), partial(app.complete, process))
        run = partial(command_line(), args=(), prog_name="tlsy", obj=program)
        with monkeypatch.context() as shell:
            for name, value in (environ | said_by("bash", line)).items():
                shell.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                await asyncio.to_thread(run)
        assert ended.value.code == 0
        return capfd.readouterr().out.split()

    return complete


@pytest.fixture
def shell(tmp_path):
    """What a shell is given by the program."""

    async def complete(line, name="bash", **environ):
        environ = {"TLSY_CONFIG": str(tmp_path / "config.yaml"), **said_by(name, line), **environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "from tlsy.cli.__main__ import main; main()",
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env={**os.environ, **environ},
        )  # fmt: skip
        # A program whose modules are not compiled yet takes long to start on a busy machine.
        async with asyncio.timeout(90):
            out, err = await process.communicate()
        assert (process.returncode, err.decode()) == (0, "")
        return out.decode().split()

    return complete


@pytest.fixture
def known(stand_in):
    """What the servers know."""
    tenants = [tenant_pb2.Tenant(name=f"tenants/{slug}") for slug in ("acme", "acme-lab", "zenith")]
    clusters = [tenant_pb2.Cluster(name=f"clusters/{name}") for name in ("eu-1", "sn-1")]
    rules = [rules_engine_pb2.Rule(name=f"tenants/home/rules/{name}") for name in ("cpu-busy", "disk-full")]
    incidents = [rules_engine_pb2.Incident(name=f"tenants/home/incidents/{i}") for i in (ID, OTHER_ID)]
    users = [identity_pb2.User(name="tenants/home/users/1", email=email) for email in ("ada@b.c", "bob@b.c")]
    stand_in.answers |= {
        "ListTenants": tenant_registry_pb2.ListTenantsResponse(tenants=tenants, next_page_token="more"),
        "ListClusters": tenant_registry_pb2.ListClustersResponse(clusters=clusters),
        "ListRules": rules_engine_pb2.ListRulesResponse(rules=rules),
        "ListIncidents": rules_engine_pb2.ListIncidentsResponse(incidents=incidents, next_page_token="more"),
        "ListUsers": identity_pb2.ListUsersResponse(users=users),
    }
    return stand_in


async def test_words_are_completed_down_to_a_commands_options(typed):
    assert "events" in await typed("tlsy ev")
    assert {"query", "tail", "send", "usage", "outcomes"} <= set(await typed("tlsy events "))
    assert await typed("tlsy incidents list --st") == ["--state"]
    assert "--output" in await typed("tlsy rules list --out")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tlsy context use pr", ["preprod", "prod"]),
        ("tlsy context show ", ["dev", "preprod", "prod"]),
        ("tlsy --context d", ["dev"]),
        ("tlsy rules list --context d", ["dev"]),
    ],
)
async def test_contexts_are_those_of_the_file(typed, tmp_path, line, expected):
    contexts = {name: {"address": "localhost:1"} for name in ("dev", "preprod", "prod")}
    (tmp_path / "config.yaml").write_text(json.dumps({"contexts": contexts}))
    assert await typed(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tlsy rules list --output ", ["table", "json"]),
        ("tlsy -o j", ["json"]),
        ("tlsy tenants list --isolation ", ["SHARED", "SCHEMA", "DEDICATED"]),
        ("tlsy tenants list --isolation s", ["shared", "schema"]),
        ("tlsy tenants create x --isolation D", ["DEDICATED"]),
        ("tlsy tenants create x --profile g", ["government"]),
        ("tlsy tenants update x --tier b", ["business"]),
        ("tlsy tenants update x --provider-access O", ["ONBOARDING"]),
        ("tlsy tenants list --state ACTIVE --state susp", ["suspended"]),
        ("tlsy clusters create x --kind ", ["SHARED", "DEDICATED"]),
        ("tlsy incidents list --state ", ["OPEN", "ACKNOWLEDGED", "RESOLVED"]),
        ("tlsy incidents watch --state o", ["open"]),
        ("tlsy events send --severity e", ["error"]),
        ("tlsy modules enable re", ["reporting"]),
        ("tlsy roles bind a@b.c operator --module s", ["status-page", "supervision"]),
        ("tlsy roles bind a@b.c o", ["operator"]),
        ("tlsy users create a@b.c --role client", ["client-admin"]),
        ("tlsy keys create x --role a", ["agent"]),
    ],
)
async def test_what_is_one_of_a_few_needs_no_server(typed, line, expected):
    assert await typed(line) == expected


@pytest.mark.parametrize(
    ("line", "method", "expected"),
    [
        ("tlsy tenants get ", "ListTenants", ["acme", "acme-lab", "zenith"]),
        ("tlsy --tenant acme", "ListTenants", ["acme", "acme-lab"]),
        ("tlsy rules list --tenant z", "ListTenants", ["zenith"]),
        ("tlsy tenants list --parent a", "ListTenants", ["acme", "acme-lab"]),
        ("tlsy clusters update ", "ListClusters", ["eu-1", "sn-1"]),
        ("tlsy tenants create x --country fr --cluster e", "ListClusters", ["eu-1"]),
        ("tlsy rules get ", "ListRules", ["cpu-busy", "disk-full"]),
        ("tlsy rules rollback d", "ListRules", ["disk-full"]),
        ("tlsy incidents list --rule c", "ListRules", ["cpu-busy"]),
        ("tlsy incidents ack ", "ListIncidents", [ID, OTHER_ID]),
        (f"tlsy incidents get {OTHER_ID[:-1]}", "ListIncidents", [ID, OTHER_ID]),
        ("tlsy users disable a", "ListUsers", ["ada@b.c"]),
        ("tlsy roles bind b", "ListUsers", ["bob@b.c"]),
    ],
)
async def test_what_servers_know_is_asked_for_once_and_a_page_of_it(
    tlsy, known, typed, line, method, expected
):
    assert await typed(line) == expected
    assert 0 < known.only(method).request.page_size <= 1000


@pytest.mark.parametrize("line", ["tlsy tenants create a", "tlsy clusters create e"])
async def test_what_is_made_has_a_name_of_its_own(tlsy, known, typed, line):
    assert await typed(line) == []
    assert known.asked == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bash", ["acme", "acme-lab"]),
        ("fish", ["acme", "acme-lab"]),
        ("zsh", ["_arguments", "'*:", ':(("acme"', '"acme-lab"))\'']),
    ],
)
async def test_each_shell_gets_them_in_its_own_form(tlsy, known, shell, name, expected):
    assert await shell("tlsy tenants get ac", name) == expected


async def test_it_is_asked_in_the_tenant_and_context_that_were_typed_and_the_command_needs_no_other_token(
    tlsy, known, typed
):
    contexts = json.loads(tlsy.config.read_text())["contexts"]
    tlsy.config.write_text(json.dumps({"contexts": {"other": contexts["c"]}}))
    there = "--context other --tenant child"
    assert await typed(f"tlsy {there} rules get ") == ["cpu-busy", "disk-full"]
    assert await typed(f"tlsy rules get {there} ") == ["cpu-busy", "disk-full"]
    assert (await tlsy("rules", "get", *there.split(), "cpu-busy")).code == 0
    asked = [each for each in known.asked if each.method == "ListRules"]
    assert {(each.request.parent, each.token) for each in asked} == {("tenants/child", "child")}
    assert known.only("ExchangeToken").request.reason == "tlsy rules get"


async def test_a_name_that_a_shell_would_evaluate_is_not_offered(tlsy, known, typed):
    names = ["a$(x)", "a`x`", "a'b", 'a"b', "a;b", "a\\b", "a b", "a\nb", "a\x1b[2J", "acme"]
    tenants = [tenant_pb2.Tenant(name=f"tenants/{name}") for name in names]
    known.answers["ListTenants"] = tenant_registry_pb2.ListTenantsResponse(tenants=tenants)
    assert await typed("tlsy tenants get a") == ["acme"]


@pytest.mark.parametrize("line", ["tlsy --tenant ", "tlsy incidents ack "])
async def test_a_server_that_is_dead_has_nothing_to_complete(tlsy, stand_in, shell, line):
    await stand_in.down()
    assert await shell(line) == []


async def test_a_server_that_does_not_answer_is_not_waited_for(tlsy, stand_in, shell):
    asked_s = []

    async def silent(_):
        asked_s.append(time.monotonic())
        await asyncio.Event().wait()

    stand_in.answers["ListTenants"] = silent
    assert await shell("tlsy tenants get ") == []
    # A command would wait for 15 seconds.
    assert time.monotonic() - asked_s[0] < 10


async def test_what_grpc_says_of_a_failure_is_not_shown(tlsy, stand_in, shell):
    tlsy.context(address=stand_in.target, api_key_file="key", tls={})
    assert await shell("tlsy tenants get ", GRPC_VERBOSITY="INFO") == []


async def test_who_is_not_logged_in_is_asked_for_nothing(tlsy, stand_in, shell):
    tlsy.context(address=stand_in.target, user="ada@b.c", tenant="acme")
    assert await shell("tlsy tenants get ") == []
    assert stand_in.asked == []


@pytest.mark.parametrize(
    "members",
    [
        {"address": "127.0.0.1:1", "api_key_file": "missing"},
        {"address": "no-such-host.invalid:1", "api_key_file": "key"},
        {"address": "127.0.0.1:1", "api_key_file": "key", "tls": {"ca_file": "key"}},
        {"unknown": "member"},
    ],
)
async def test_a_context_that_is_wrong_has_nothing_to_complete(tlsy, typed, members):
    tlsy.context(**members)
    assert await typed("tlsy tenants get ") == []


async def test_a_refusal_is_not_shown(tlsy, known, typed):
    known.answers["ListTenants"] = PermissionDenied("PERMISSION_MISSING", "No.")
    assert await typed("tlsy tenants get ") == []


@pytest.mark.parametrize("line", ["tlsy tenants get ", "tlsy context use "])
async def test_a_contexts_file_that_is_none_or_no_yaml_has_nothing_to_complete(typed, tmp_path, line):
    assert await typed(line) == []
    (tmp_path / "config.yaml").write_text("{")
    assert await typed(line) == []


@pytest.mark.parametrize("line", ["tlsy tenants get ", "tlsy context use "])
async def test_a_contexts_file_that_cannot_be_looked_for_has_nothing_to_complete(shell, line):
    assert await shell(line, TLSY_CONFIG="a-name-that-is-too-long" * 20) == []
