from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tlsy.rpc.probe import EXIT_NOT_SERVING, EXIT_SETTINGS, main
from tlsy.testkit.certificates import Authority


@pytest.fixture
def settings(monkeypatch, directory, world):
    """The settings of the process that `world` is; those of the test come on top."""

    def sets(**more: object) -> None:
        for name, value in more.items():
            monkeypatch.setenv(f"TLSY_{name.upper()}", str(value))

    sets(listen=world.host.listen, service_key_file=directory / "key", trust_dir=directory)
    return sets


@asynccontextmanager
async def running(world):
    server = world.server()
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def asked(*arguments: str) -> int:
    return await asyncio.to_thread(main, list(arguments))


async def test_one_that_serves_is_well(settings, server):
    assert await asked("--timeout-s", "5") == 0


async def test_one_that_misses_something_is_not(settings, world, capsys):
    world.missing = ("the catalogue",)
    async with running(world):
        assert await asked() == EXIT_NOT_SERVING
    assert capsys.readouterr().out.endswith("NOT_SERVING\n")


async def test_one_that_does_not_answer_is_not(settings, capsys):
    assert await asked("--timeout-s", "0.5") == EXIT_NOT_SERVING
    assert capsys.readouterr().out.startswith(("UNAVAILABLE", "DEADLINE_EXCEEDED"))


async def test_a_service_that_it_has_not_is_not(settings, server):
    assert await asked("--service", "tlsy.billing.v1.BillingService") == EXIT_NOT_SERVING


async def test_a_server_that_wants_a_certificate_is_shown_its_own(settings, world, directory):
    files = Authority(directory, "ours").issue("server")
    world.host = replace(world.host, listen="0.0.0.0:0", tls=files)
    async with running(world) as server:
        settings(listen=f"0.0.0.0:{server.port}", tls_ca_file=files.ca_file)
        settings(tls_cert_file=files.cert_file, tls_key_file=files.key_file)
        assert await asked("--timeout-s", "5") == 0


async def test_wrong_settings_are_told_apart(settings, directory, capsys):
    settings(listen="0.0.0.0:7000")
    assert await asked() == EXIT_SETTINGS
    assert "TLSY_CLEAR_TEXT" in capsys.readouterr().err
