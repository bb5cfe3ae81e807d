from __future__ import annotations

import asyncio
import threading

import pytest

from tlsy.agent.adapters.background import Background
from tlsy.agent.adapters.host import HostReader
from tlsy.agent.adapters.readings import HostAndProbes
from tlsy.agent.settings import Settings
from tlsy.runtime.clock import SystemClock
from tlsy.testkit.listening import keep_silent, listening

OFF = {"cpu": False, "memory": True, "load": False, "disks": False, "network": False}


def readings(**members):
    settings = Settings.model_validate(
        {
            "endpoints": {"identity": "i", "ingestion": "i"},
            "api_key_file": "/k",
            "buffer": {"directory": "/b"},
            "host": OFF,
            **members,
        }
    )
    return HostAndProbes(settings, HostReader(settings.host), SystemClock())


async def test_a_healthy_target_is_up_beside_many_that_hang():
    with listening(keep_silent) as hanging, listening(b"HTTP/1.1 200 OK\r\n\r\n") as healthy:
        http = [
            {"name": f"hangs-{n}", "url": f"http://127.0.0.1:{hanging}/", "timeout_s": 1} for n in range(60)
        ]
        http.append({"name": "healthy", "url": f"http://localhost:{healthy}/", "timeout_s": 10})
        both = readings(
            http=http, tcp=[{"name": "port", "host": "localhost", "port": healthy, "timeout_s": 10}]
        )
        for _ in range(2):
            found = {reading.subject: reading.value for reading in await both.read()}
            assert (found["healthy"], found["port"], found["hangs-0"]) == (1.0, 1.0, 0.0)
            assert "used_percent" in found


async def test_a_call_that_hangs_holds_one_thread_and_no_other_call():
    background, go_on, begun = Background(), threading.Event(), []

    def hang():
        begun.append(1)
        go_on.wait(30)
        return "late"

    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await background.run("name", hang)
    assert await background.run("another", lambda: "at once") == "at once"
    go_on.set()
    assert await background.run("name", hang) == "late"
    assert len(begun) == 1


async def test_a_call_for_which_there_was_no_thread_is_made_when_it_is_asked_for_again():
    background, before = Background(), threading.stack_size(2**46)
    try:
        with pytest.raises(RuntimeError, match="new thread"):
            await background.run("name", lambda: "never")
    finally:
        threading.stack_size(before)
    async with asyncio.timeout(10):
        assert await background.run("name", lambda: "again") == "again"


async def test_what_a_background_call_raises_is_raised_where_it_is_waited_for():
    with pytest.raises(UnicodeError):
        await Background().run("x", lambda: "a..b".encode("idna"))
