"""`main` in processes of its own, as a service's __main__.py calls it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from tlsy.runtime.environment import HostSettings
from tlsy.runtime.settings import load

PROGRAM = """
import asyncio
import gc
from pydantic_settings import SettingsConfigDict
from tlsy.runtime.host import main
from tlsy.runtime.service import Part, Supervisor, Task
from tlsy.runtime.settings import ServiceSettings, SettingsInvalid, setting

class ShopSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="TLSY_SHOP_")
    breaks: bool = setting(False, unit="", why="to see it break")
    shelves: int = setting(3, unit="shelves", why="they fit", ge=1)

def build(settings, host):
    if settings.shelves > 99:
        raise SettingsInvalid(("TLSY_SHOP_SHELVES: there is no room.",))
    async def run(stopping):
        print(host.role, host.service, flush=True)
        if settings.breaks:
            raise OSError("roof fell")
        await stopping.wait()
        print("drained", flush=True)
        print("frozen", gc.get_freeze_count(), "young", gc.get_threshold()[0], flush=True)
    return Supervisor("shop", [Part(Task("till", run))])

raise SystemExit(main("shop", ShopSettings, app=__name__))
"""


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "key.json").write_text("{}")
    (tmp_path / "trust").mkdir()
    return {
        "TLSY_SERVICE_KEY_FILE": str(tmp_path / "key.json"),
        "TLSY_TRUST_DIR": str(tmp_path / "trust"),
        "PATH": "/usr/bin:/bin",
    }


def start(environment, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def until_started(process: subprocess.Popen[str]) -> None:
    while "service started" not in (line := next_line(process)):
        assert line


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_drained(environment, number):
    process = start(environment, "--role", "worker")
    until_started(process)
    process.send_signal(number)
    code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert "drained" in out


def test_what_a_started_process_holds_is_not_walked_over_by_the_collector(environment):
    process = start(environment)
    until_started(process)
    process.terminate()
    _, out, _ = finish(process)
    _, frozen, _, young = next(line for line in out.splitlines() if line.startswith("frozen")).split()
    assert int(frozen) > 10_000
    assert int(young) > 700


def test_the_role_is_told_to_the_service(environment):
    process = start(environment, "--role", "api")
    assert next_line(process) == "api shop\n"
    process.terminate()
    finish(process)


def test_a_component_that_breaks_ends_the_process_and_says_why(environment):
    code, out, _ = finish(start(environment | {"TLSY_SHOP_BREAKS": "1"}))
    failed = next(line for line in out.splitlines() if "component failed" in line)
    assert code == 1
    assert json.loads(failed)["error"] == "till failed: OSError: roof fell"


def test_wrong_settings_are_all_named_and_nothing_starts(environment):
    wrong = environment | {"TLSY_SHOP_SHELVES": "0", "TLSY_TRACE_RATIO": "2"}
    code, out, err = finish(start(wrong))
    assert (code, out) == (78, "")
    assert "TLSY_SHOP_SHELVES" in err
    assert "TLSY_TRACE_RATIO" in err


@pytest.mark.parametrize(
    "half",
    [
        {"TLSY_TLS_CERT_FILE": "c.pem"},
        {"TLSY_TLS_KEY_FILE": "k.pem"},
        {"TLSY_TLS_CA_FILE": "ca.pem"},
        {"TLSY_TLS_CERT_FILE": "c.pem", "TLSY_TLS_CA_FILE": "ca.pem"},
        {"TLSY_LISTEN": "0.0.0.0:7000"},
        {"TLSY_LISTEN": "[::]:7000"},
        {"TLSY_LISTEN": "tlsy.example.org:7000"},
        {"TLSY_PEERS": '{"identity": "localhost:7000", "billing": "tlsy.example.org:7000"}'},
    ],
)
def test_nothing_is_in_clear_by_oversight(environment, half):
    code, out, err = finish(start(environment | half))
    assert (code, out) == (78, "")
    assert all(name in err for name in half)
    assert all(f"TLSY_TLS_{name}_FILE" in err for name in ("CERT", "KEY"))
    assert "TLSY_:" not in err


@pytest.mark.parametrize(
    "more",
    [
        {"TLSY_LISTEN": "[::1]:7000"},
        {"TLSY_LISTEN": "localhost:7000"},
        {"TLSY_LISTEN": "unix:/tmp/s"},
        {
            "TLSY_LISTEN": "unix:/tmp/s",
            "TLSY_PEERS": '{"identity": "127.0.0.1:7000", "billing": "unix:/tmp/b"}',
        },
        {"TLSY_LISTEN": "0.0.0.0:7000", "TLSY_CLEAR_TEXT": "true"},
        {"TLSY_LISTEN": "0.0.0.0:7000", "TLSY_TLS_CERT_FILE": "c.pem", "TLSY_TLS_KEY_FILE": "k.pem"},
    ],
)
def test_a_server_listens_as_it_was_told(environment, more, monkeypatch):
    for name, value in (environment | more).items():
        monkeypatch.setenv(name, value)
    assert load(HostSettings).listen == more["TLSY_LISTEN"]


@pytest.mark.parametrize("name", ["TLSY_SERVICE_KEY_FILE", "TLSY_TRUST_DIR"])
def test_a_file_that_is_not_there_is_named(environment, name):
    code, _, err = finish(start(environment | {name: "/nowhere/key"}))
    assert (code, "/nowhere/key" in err) == (78, True)


def test_a_file_that_is_no_text_is_named(environment, tmp_path):
    (tmp_path / "trust" / "identity.json").write_bytes(b"\xff\xfe")
    code, _, err = finish(start(environment))
    assert (code, "identity.json" in err, "Traceback" in err) == (78, True, False)


def test_a_setting_that_is_wrong_by_what_it_names_is_told_as_that(environment):
    code, out, err = finish(start(environment | {"TLSY_SHOP_SHELVES": "100"}))
    assert (code, out) == (78, "")
    assert err == "shop: the settings are wrong:\nTLSY_SHOP_SHELVES: there is no room.\n"


def test_a_port_that_is_taken_is_named(environment, free_port):
    with socket.create_server(("", free_port)):
        code, _, err = finish(start(environment | {"TLSY_METRICS_PORT": str(free_port)}))
    assert (code, f"TLSY_METRICS_PORT: {free_port}" in err) == (78, True)


def test_settings_can_be_listed_without_any(environment):
    code, out, _ = finish(start({"PATH": "/usr/bin:/bin"}, "--settings"))
    assert code == 0
    assert "TLSY_SHOP_SHELVES\tshelves\t3\tthey fit" in out.splitlines()


def test_metrics_are_served_only_on_a_port_that_was_asked_for(environment, free_port):
    process = start(environment | {"TLSY_METRICS_PORT": str(free_port)})
    next_line(process)
    with urllib.request.urlopen(f"http://127.0.0.1:{free_port}/metrics", timeout=60) as answer:
        assert b"process_resident_memory_bytes" in answer.read()
    process.terminate()
    assert finish(process)[0] == 0
