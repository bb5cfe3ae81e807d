"""The commands of the README, run as they stand there, but on a data directory of the test's own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from .killable import killable_suite

_ROOT: Final = Path(__file__).parents[2]
_DATA: Final = "/var/tmp/tlsy-mine"
_TIMEOUT_S: Final = 120
_BLOCKS: Final = re.findall(
    r"^```bash\n(.*?)^```$", (_ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.fixture
async def suite():
    async with killable_suite() as made:
        await made.start()
        await made.ready()
        yield made


@pytest.fixture
def grpcurl(monkeypatch):
    """On the PATH; the first use builds it."""
    built = subprocess.run(
        [_ROOT / ".ci" / "tool", "grpcurl"], stdout=subprocess.PIPE, text=True, check=True, timeout=1800
    )
    monkeypatch.setenv("PATH", str(Path(built.stdout).parent), prepend=os.pathsep)


async def said_by(script, suite, tmp_path, typed=""):
    """Run in a folder that has what the checkout has, with `typed` as its standard input."""
    examples = tmp_path / "examples"
    if not examples.exists():
        examples.symlink_to(_ROOT / "examples")
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script.replace(_DATA, str(suite.data))),
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TLSY_CONFIG": str(suite.data / "context.yaml"),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(typed.encode()), _TIMEOUT_S)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def incidents_of(tenant, suite, tmp_path):
    """Its first incident's line, once there is one."""
    listing = f"tlsy --tenant {tenant} --reason test incidents list"
    async with asyncio.timeout(_TIMEOUT_S):
        while "oven at" not in (shown := await said_by(listing, suite, tmp_path)):
            pass
    return shown


async def test_a_start_after_one_that_was_killed_is_waited_for(tmp_path):
    (tmp_path / ".venv").symlink_to(sys.prefix)
    async with killable_suite() as not_started:
        not_started.data.mkdir()
        (not_started.data / "run.json").write_text('{\n  "pid": 1,\n  "services": {}\n}\n')
        environment = f"export TMPDIR={not_started.folder} TLSY_EMBEDDED_ARGON2_MEMORY_KIB=64"
        ended = "trap 'kill $!; wait $!' EXIT"
        said = await said_by("\n".join((environment, ended, _BLOCKS[0])), not_started, tmp_path)
        assert "WRONG" not in said
        assert "rules-engine" in said


async def test_by_tlsy_from_python_and_from_kafka(suite, tmp_path):
    _, by_tlsy, further, people, from_python, from_kafka, _ = _BLOCKS
    await said_by("tlsy doctor", suite, tmp_path)
    await said_by(by_tlsy, suite, tmp_path)
    assert "oven at 41 °C" in await incidents_of("shop", suite, tmp_path)
    await said_by(further, suite, tmp_path)
    assert "RESOLVED" in await said_by("tlsy --tenant shop incidents list", suite, tmp_path)
    stricter = "tlsy --tenant shop incidents list | awk '/critical/ { print $1 }'"
    async with asyncio.timeout(_TIMEOUT_S):
        while "superseded" not in await said_by(
            f"tlsy --tenant shop incidents get $({stricter})", suite, tmp_path
        ):
            pass
    for line in people.splitlines():
        said = await said_by(line, suite, tmp_path, typed="of the oven's own people\n")
    assert "tenants/shop/users/" in said
    assert "OUTCOME_ACCEPTED" in await said_by(from_python, suite, tmp_path)
    assert "oven at 41 °C" in await incidents_of("kiosk", suite, tmp_path)
    assert "written to partition" in await said_by(from_kafka, suite, tmp_path)
    asked = "tlsy --tenant shop --reason test events query --type room.temperature --output json"
    async with asyncio.timeout(_TIMEOUT_S):
        while '"value": 42' not in await said_by(asked, suite, tmp_path):
            pass


async def test_who_produces_without_being_entitled_to_is_told_where_the_readme_says(suite, tmp_path):
    by_tlsy, from_kafka = _BLOCKS[1], _BLOCKS[5]
    starter = "\n".join(by_tlsy.splitlines()[:2]).replace("--tier business", "--tier starter")
    assert "--tier starter" in starter
    assert "written to partition" in await said_by(f"{starter}\n{from_kafka}", suite, tmp_path)
    async with asyncio.timeout(_TIMEOUT_S):
        while "KAFKA_PRODUCERS_NOT_ENTITLED" not in await said_by(
            from_kafka.splitlines()[-1], suite, tmp_path
        ):
            pass


@pytest.mark.real
@pytest.mark.usefixtures("grpcurl")
async def test_by_grpcurl(suite, tmp_path):
    said = await said_by(_BLOCKS[-1], suite, tmp_path)
    assert "OUTCOME_ACCEPTED" in said
    assert "oven at 41 °C" in await incidents_of("stall", suite, tmp_path)
