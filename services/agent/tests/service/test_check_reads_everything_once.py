from __future__ import annotations

import asyncio
import sys

import pytest

CONFIG = """
endpoints: {{identity: "i:1", ingestion: "i:1"}}
api_key_file: {folder}/key
buffer: {{directory: {folder}/buffer}}
tcp: [{{name: closed, host: 127.0.0.1, port: 9, timeout_s: 1}}]
{more}
"""


@pytest.fixture
def agent(tmp_path):
    """Runs `python -m tlsy.agent --check`; gives the exit code and both outputs."""
    (tmp_path / "key").write_text("the-key")
    (tmp_path / "key").chmod(0o600)

    async def run(more="", *options):
        config = tmp_path / "agent.yaml"
        config.write_text(CONFIG.format(folder=tmp_path, more=more))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tlsy.agent", "--config", str(config), *(options or ["--check"]),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    return run


async def test_all_is_printed_and_nothing_is_kept(agent, tmp_path):
    code, out, err = await agent()
    rows = {tuple(line.split("\t")[:2]): line.split("\t")[2] for line in out.splitlines()}
    assert (code, err) == (0, "")
    assert rows["probe.tcp", "closed"] == "0"
    assert float(rows["host.memory", "used_percent"]) > 0
    assert rows["host.memory", "available_bytes"].isdigit()
    assert not (tmp_path / "buffer").exists()


async def test_a_file_that_is_wrong_is_exit_code_78_with_every_problem(agent):
    for options in (["--check"], []):
        code, _, err = await agent("interval_s: 0\nunknown: 1", *options)
        assert code == 78
        assert "2 problem(s)" in err
        assert "Traceback" not in err


async def test_a_key_that_is_not_there_is_exit_code_78(agent, tmp_path):
    (tmp_path / "key").unlink()
    code, out, err = await agent()
    assert (code, "host.memory" in out) == (78, True)
    assert "put the API key there" in err


async def test_a_key_that_others_can_read_is_told(agent, tmp_path):
    (tmp_path / "key").chmod(0o640)
    code, _, err = await agent()
    assert (code, f"chmod 600 {tmp_path}/key" in err) == (0, True)
