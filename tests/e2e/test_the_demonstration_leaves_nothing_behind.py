"""`make demo` as a person stops it, and what a second one finds of the first."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import pytest
from rich.console import Console

from examples.demo import facts, scenario, view
from examples.demo.processes import ROOT, DemoError, Processes, Running, alone
from examples.demo.run import main
from examples.demo.sessions import Principals, Session, eventually
from tlsy.contracts.identity.v1 import identity_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules
from tlsy.tenancy.context import IsolationMode

from .world import until

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

    from .world import World

_WITHIN_S: Final = 60


class Demonstration:
    """`python -m examples.demo` in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.process: Process | None = None

    async def start(self) -> None:
        with (self.folder / "shown").open("wb") as shown:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "examples.demo", "--data-dir", str(self.data)),
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.folder), "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=shown,
                stderr=shown,
                start_new_session=True,
            )

    def shown(self) -> str:
        return (self.folder / "shown").read_text()

    async def when(self, moment: str) -> None:
        """Once it has shown the text, loaded the library, or made the file."""

        async def is_reached() -> bool:
            assert self.process is not None
            assert self.process.returncode is None, self.shown()
            return self._reached(moment, self.process.pid)

        await until(is_reached)

    def _reached(self, moment: str, pid: int) -> bool:
        maps = Path(f"/proc/{pid}/maps")
        loaded = maps.read_text() if maps.exists() else ""
        return moment in self.shown() or moment in loaded or (self.data / moment).exists()

    async def interrupted(self) -> int:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), _WITHIN_S)

    def left(self) -> list[str]:
        """Command lines of processes, and sockets."""
        lines = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                lines.append(path.read_bytes().decode(errors="replace").replace("\0", " "))
            except OSError:
                continue
        return [line for line in lines if str(self.folder) in line] + [
            str(path) for path in self.folder.glob("tlsy-*")
        ]


@pytest.fixture
async def demonstration() -> AsyncIterator[Demonstration]:
    made = Demonstration(_folder())
    yield made
    if made.process is not None and made.process.returncode is None:
        made.process.terminate()
        await asyncio.wait_for(made.process.wait(), _WITHIN_S)
    shutil.rmtree(made.folder)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="demo-"))
    # PostgreSQL, which does not run as root, must get to its own folder below.
    folder.chmod(0o711)
    return folder


@pytest.mark.parametrize("moment", ["cygrpc", "Data:", "suite/postgres/postmaster.pid", "Ready after"])
async def test_ctrl_c_at_the_start_is_a_quiet_end(demonstration: Demonstration, moment: str) -> None:
    await demonstration.start()
    await demonstration.when(moment)
    assert await demonstration.interrupted() == 0, demonstration.shown()
    assert "Stopped; nothing is left running." in demonstration.shown()
    assert "Traceback" not in demonstration.shown()
    assert demonstration.left() == []


async def test_a_roll_back_is_told_and_leaves_no_incident_open(world: World, tmp_path: Path) -> None:
    made = await world.tenant("firm", IsolationMode.SHARED)
    tenant = scenario.Tenant(
        slug=made.slug,
        display_name="Firm",
        mode="SHARED",
        tenant_id=str(made.tenant_id),
        administrator=await world.administrator(made.slug),
        agent=world.agent(made.slug),
    )
    told: list[str] = []
    await scenario.roll_back(tenant, Processes(tmp_path), told.append)
    assert [line.split(":")[0] for line in told] == ["A rule was rolled back"]
    (signal_,) = await world.incidents(made, "demo-roll-back")
    assert (signal_.summary, signal_.state) == ("Signal 11", rules.INCIDENT_STATE_RESOLVED)


async def test_a_machine_that_is_slow_is_waited_for_and_a_refusal_is_not() -> None:
    ends = [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL]

    async def ask() -> None:
        raise grpc.aio.AioRpcError(ends.pop(0), grpc.aio.Metadata(), grpc.aio.Metadata())

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await eventually(ask)
    assert (raised.value.code(), ends) == (grpc.StatusCode.INTERNAL, [])


def test_a_roll_back_that_took_its_time_is_a_figure_and_no_failure() -> None:
    shown = (
        "events_stored",
        "duplicates",
        "incidents_opened",
        "incidents_acknowledged",
        "incidents_resolved",
    )
    proved = dict.fromkeys((*shown, "usage_facts", "audit_records"), 1)
    proved |= {"cross_tenant_leaks": 0, "rule_rollback_ms": 1023}
    assert facts.missing({**proved, "placements": {"SHARED": 1, "SCHEMA": 1, "DEDICATED": 1}}) == []
    lost = {**proved, "events_stored": 0, "placements": {"SHARED": 0}}
    assert facts.missing(lost) == ["Not shown: a tenant of each isolation mode", "Not shown: events"]


def test_a_second_demonstration_is_told_of_the_first_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone(tmp_path):
        assert main(["--data-dir", str(tmp_path)]) == 1
    assert f"runs in this clone already (pid {os.getpid()}): end it with Ctrl-C" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


async def test_tlsy_is_run_again_while_the_suite_is_too_slow_for_it_and_a_refusal_is_told(
    tmp_path: Path,
) -> None:
    ends = [(3, "no answer"), (0, ""), (3, "no answer"), (1, "refused"), (0, "")]

    async def apply(_: Path) -> tuple[int, str]:
        return ends.pop(0)

    principals = Principals(_nobody(tmp_path), tmp_path / "secrets.json")
    try:
        asked = partial(
            scenario.apply_manifests, Processes(tmp_path), principals.platform(), print, apply=apply
        )
        await asked()
        with pytest.raises(DemoError, match="tlsy apply failed:\nrefused"):
            await asked()
    finally:
        await principals.close()
    assert ends == [(0, "")]


async def test_tenants_that_take_too_long_are_told_in_a_line_with_the_log(tmp_path: Path) -> None:
    principals = Principals(_nobody(tmp_path), tmp_path / "secrets.json")
    try:
        with pytest.raises(DemoError, match=r"more than 0 s .*: make demo again\n.*logs/suite\.log"):
            await scenario.apply_manifests(Processes(tmp_path), principals.platform(), print, within_s=0.1)
    finally:
        await principals.close()


async def test_a_call_that_failed_is_told_by_name_and_tenant(tmp_path: Path) -> None:
    public = Session(_nobody(tmp_path), None)
    try:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await public.rules.ListIncidents(rules.ListIncidentsRequest(parent="tenants/shop"), timeout=0.1)
    finally:
        await public.close()
    assert raised.value.__notes__ == ["rules-engine, ListIncidents for tenants/shop"]


@pytest.mark.parametrize("example", ["from_python.py", "produce_event.py"])
def test_an_example_says_how_to_start_the_suite_that_it_misses(example: str, tmp_path: Path) -> None:
    asked = [sys.executable, str(ROOT / "examples" / example), str(tmp_path / "run.json"), "other"]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_WITHIN_S)
    (said,) = ran.stderr.splitlines()
    assert said.endswith(f"Start it: python -m tlsy.embedded --data-dir {tmp_path}")


@pytest.mark.parametrize("example", ["from_python.py", "produce_event.py"])
@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"services": 7}', b'{"services": {}}'])
def test_an_example_says_what_to_name_instead_of_what_no_suite_wrote(
    example: str, content: bytes, tmp_path: Path
) -> None:
    told = tmp_path / "run.json"
    told.write_bytes(content)
    (tmp_path / "key").write_text("key")
    asked = [sys.executable, str(ROOT / "examples" / example), str(told), str(tmp_path / "key")]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_WITHIN_S)
    (said,) = ran.stderr.splitlines()
    assert said.startswith(f"{told} is not what a running suite writes")
    assert said.endswith(f"or start one: python -m tlsy.embedded --data-dir {tmp_path}")


@pytest.mark.parametrize("example", ["from_python.py", "produce_event.py"])
@pytest.mark.parametrize("missing", ["run.json", "key"])
def test_a_file_that_an_example_cannot_read_is_told_in_one_line(
    example: str, missing: str, tmp_path: Path
) -> None:
    suite, told, key = _nobody(tmp_path), tmp_path / "run.json", tmp_path / "key"
    told.write_text(json.dumps({"services": suite.services, "brokers": [], "api_key_file": str(key)}))
    (tmp_path / missing).unlink(missing_ok=True)
    (tmp_path / missing).mkdir()
    asked = [sys.executable, str(ROOT / "examples" / example), str(told), str(key)]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_WITHIN_S)
    (said,) = ran.stderr.splitlines()
    assert "cannot be read: " in said


@pytest.mark.parametrize("example", ["from_python.py", "produce_event.py"])
def test_what_an_example_is_refused_is_told_in_one_line(example: str, tmp_path: Path) -> None:
    suite, run_json = _nobody(tmp_path), tmp_path / "run.json"
    told = {"services": suite.services, "brokers": [], "api_key_file": str(suite.api_key_file)}
    run_json.write_text(json.dumps(told))
    asked = [sys.executable, str(ROOT / "examples" / example), str(run_json), str(suite.api_key_file)]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_WITHIN_S)
    (said,) = ran.stderr.splitlines()
    assert (ran.returncode, said.startswith("UNAVAILABLE: ")) == (1, True)


@pytest.mark.parametrize("example", ["from_python.py", "produce_event.py"])
@pytest.mark.parametrize("count", [1, 3])
def test_an_example_says_what_it_is_given(example: str, count: int) -> None:
    asked = [sys.executable, str(ROOT / "examples" / example), *["any"] * count]
    ran = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=_WITHIN_S)
    assert (ran.returncode, f"examples/{example} RUN_JSON " in ran.stderr) == (1, True)
    assert "Traceback" not in ran.stderr


async def test_an_example_whose_broker_is_away_says_so_in_one_line(tmp_path: Path) -> None:
    suite, run_json = _nobody(tmp_path), tmp_path / "run.json"
    run_json.write_text(json.dumps({"services": suite.services, "brokers": ["127.0.0.1:1"]}))
    server = grpc.aio.server()
    exchange = grpc.unary_unary_rpc_method_handler(
        _any_token,
        request_deserializer=identity_pb2.ExchangeApiKeyRequest.FromString,
        response_serializer=identity_pb2.ExchangeApiKeyResponse.SerializeToString,
    )
    service = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name
    handler = grpc.method_handlers_generic_handler(service, {"ExchangeApiKey": exchange})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(suite.services["identity"])
    await server.start()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "examples" / "produce_event.py")),
            *(str(run_json), str(suite.api_key_file)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    finally:
        await server.stop(0)
    (line,) = said.decode().splitlines()
    assert line.startswith("No broker took it at 127.0.0.1:1: ")
    assert line.endswith(f"python -m tlsy.embedded --data-dir {tmp_path}")


async def _any_token(_: object, __: object) -> identity_pb2.ExchangeApiKeyResponse:
    return identity_pb2.ExchangeApiKeyResponse(token=identity_pb2.Token(access_token="any"))


def _nobody(folder: Path) -> Running:
    """A suite that does not answer."""
    key = folder / "platform.key"
    key.write_text("key")
    services = ("tenant-registry", "identity", "ingestion", "rules-engine")
    return Running(dict.fromkeys(services, f"unix:{folder}/nothing"), (), "", key)


def test_the_readme_shows_what_the_view_shows() -> None:
    (shown,) = re.findall(
        r"^TLS-Y, \d+ s\n.*?(?=^```)", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    drawn = io.StringIO()
    context = Path("/home/me/tls-y/.tlsy/demo/suite/context.yaml")
    Console(width=80, file=drawn).print(view.render([], 45, context))
    assert _headings(shown) == _headings(drawn.getvalue())
    assert shown.splitlines()[-2:] == [line.rstrip() for line in drawn.getvalue().splitlines()[-2:]]
    assert shown.endswith(f"export TLSY_CONFIG={context}\n")
    assert {len(line) for line in shown.splitlines() if "│" in line} == {80}


def test_who_removes_the_demonstrations_data_is_told_whether_there_were_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "demo"
    data.mkdir()
    for told in (f"Removing {data}\nRemoved\n", f"Nothing to remove: there is no {data}\n"):
        assert main(["--clean", "--data-dir", str(data)]) == 0
        assert (capsys.readouterr().out, data.exists()) == (told, False)


def _headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if "┃" in line]
