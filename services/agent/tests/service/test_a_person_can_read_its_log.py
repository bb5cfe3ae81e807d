from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

CONFIG = """
endpoints: {{identity: "127.0.0.1:1", ingestion: "127.0.0.1:1"}}
api_key_file: {folder}/not-there
buffer: {{directory: {folder}/buffer}}
source: agent/read
"""


@pytest.fixture
def first_line(tmp_path):
    """Runs an agent until it says something on the given one of its outputs."""
    (tmp_path / "agent.yaml").write_text(CONFIG.format(folder=tmp_path))

    async def read(name, *arguments, **outputs):
        command = (sys.executable, "-m", "tlsy.agent", "--config", str(tmp_path / "agent.yaml"))
        process = await asyncio.create_subprocess_exec(*command, *arguments, **outputs)
        try:
            async with asyncio.timeout(60):
                return (await getattr(process, name).readline()).decode()
        finally:
            process.kill()
            await process.wait()

    return read


async def test_at_a_terminal_it_is_text_on_stderr(first_line):
    ours, theirs = os.openpty()
    line = await first_line("stderr", stdout=theirs, stderr=asyncio.subprocess.PIPE)
    os.close(ours)
    os.close(theirs)
    assert "look at the API key" in line
    assert not line.startswith("{")


@pytest.mark.parametrize("arguments", [(), ("--log-format", "json")])
async def test_elsewhere_it_is_json_on_stdout(first_line, arguments):
    line = await first_line("stdout", *arguments, stdout=asyncio.subprocess.PIPE)
    assert json.loads(line)["event"] == "look at the API key"
