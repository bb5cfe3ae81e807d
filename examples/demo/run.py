"""Starts everything, onboards tenants in all isolation modes, shows events becoming incidents.

With --once: unattended; every step is checked, the last line is one JSON object, and the exit code is 0 only
if all of it held. With --clean: removes the data.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import shutil
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc
from rich.console import Console
from rich.live import Live

from examples.demo import facts, scenario, view
from examples.demo.faults import DoorPort, expiring_endpoint
from examples.demo.processes import DemoError, Processes, alone, data_dir
from examples.demo.sessions import Principals
from tlsy.contracts.ingestion.v1 import ingestion_pb2
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2 as rules_pb
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from examples.demo.processes import Running
    from examples.demo.scenario import Tenant

INTERRUPTED: Final = 130


class Demo:
    """One run."""

    def __init__(self, console: Console, data: Path) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._ready_s = 0.0
        self.processes = Processes(data)
        self.door = DoorPort()
        self.tenants: list[Tenant] = []

    async def begin(self, stack: AsyncExitStack) -> Running:
        """The suite, the tenants, their rules and agents, and the two faults to come."""
        data = self.processes.data
        stack.push_async_callback(self.processes.stop)
        self._say("Starting the suite: PostgreSQL, broker, four services")
        running = await self.processes.start_suite()
        self._ready_s = time.monotonic() - self._began_s
        self._say(f"Ready after {self._ready_s:.1f} s; applying {scenario.TENANTS.name}/*.yaml")
        principals = Principals(running, data / "principals" / "secrets.json")
        stack.push_async_callback(principals.close)
        platform = principals.platform()
        await scenario.apply_manifests(self.processes, platform, self._say)
        names = scenario.slugs()
        self._say(f"Onboarding {len(names)} tenants: administrator, agent key, rules")
        self.tenants = list(
            await asyncio.gather(*(scenario.onboard(slug, platform, principals) for slug in names))
        )
        await self.door.open()
        stack.push_async_callback(self.door.close)
        ports = {"tcp": self.door.port, "tls": await stack.enter_async_context(expiring_endpoint())}
        for tenant in self.tenants:
            key_file = await principals.agent_key(tenant.slug, tenant.administrator)
            await scenario.start_agent(tenant, running, self.processes, key_file, ports)
        self._say("Agents watch this host, an ending certificate, a closing port")
        return running

    async def once(self, running: Running) -> dict[str, Any]:
        """Every step, checked; the facts."""
        await scenario.break_and_mend(self.tenants, self.door, self.processes, self._say)
        self._say("Incidents opened and resolved in every tenant")
        first = self.tenants[0]
        rollback_ms = await scenario.roll_back(first, self.processes, self._say)
        outcomes = await scenario.send(first, 50, type_="demo.repeat", value=1.0, twice=True)
        leaks = await facts.cross_tenant_leaks(self.tenants)
        self._say(f"Each tenant has asked for the others' data: {leaks} leaks")
        written = await facts.written(running, self.processes.data)
        incidents = [incident for tenant in self.tenants for incident in await facts.incidents_of(tenant)]
        modes = [tenant.mode for tenant in self.tenants]
        return {
            "tenants": len(self.tenants),
            "placements": {mode: modes.count(mode) for mode in ("SHARED", "SCHEMA", "DEDICATED")},
            "events_stored": written.events,
            "duplicates": outcomes.count(ingestion_pb2.OUTCOME_DUPLICATE),
            "incidents_opened": len(incidents),
            "incidents_acknowledged": sum(incident.HasField("acknowledge_time") for incident in incidents),
            "incidents_resolved": sum(i.state == rules_pb.INCIDENT_STATE_RESOLVED for i in incidents),
            "rule_rollback_ms": round(rollback_ms, 1),
            "usage_facts": written.usage,
            "audit_records": written.audit,
            "cross_tenant_leaks": leaks,
            "ready_s": round(self._ready_s, 2),
            "seconds": round(time.monotonic() - self._began_s, 1),
        }

    async def show(self) -> NoReturn:
        """The live view, while the port closes for half a minute every other one, until cancelled."""
        turned_s = time.monotonic()
        context = self.processes.data / "suite" / "context.yaml"
        shut = False
        with Live(console=self._console, refresh_per_second=2) as live:
            while True:
                broken = self.processes.broken()
                if broken:
                    raise DemoError(broken)
                await asyncio.gather(*(scenario.refresh(tenant, 1.0) for tenant in self.tenants))
                live.update(view.render(self.tenants, time.monotonic() - self._began_s, context))
                if time.monotonic() - turned_s > 30:  # noqa: PLR2004 - half a minute
                    await (self.door.open() if shut else self.door.close())
                    shut, turned_s = not shut, time.monotonic()
                await asyncio.sleep(1)

    def _say(self, text: str) -> None:
        self._console.print(f"[{time.monotonic() - self._began_s:5.1f} s] {text}", highlight=False)


async def run(console: Console, data: Path, *, once: bool) -> int:
    """Runs until it is done, or until Ctrl-C; whoever asks again while it stops changes nothing."""
    task = asyncio.current_task()
    if task is not None:
        _on_signals(task.cancel)
    demo, proved = Demo(console, data), None
    async with AsyncExitStack() as stack:
        try:
            running = await demo.begin(stack)
            proved = await (demo.once(running) if once else demo.show())
        except asyncio.CancelledError:
            console.print("Stopping what was started")
        finally:
            _on_signals(lambda: None)
    if proved is None:
        return stopped(console, data, once=once)
    missing = facts.missing(proved)
    for text in missing:
        console.print(f"[red]{text}[/red]", highlight=False)
    sys.stdout.write(json.dumps(proved) + "\n")
    return 1 if missing else 0


def stopped(console: Console, data: Path, *, once: bool) -> int:
    """The end that a person asked for is none of an unattended run."""
    console.print("Stopped; nothing is left running.", highlight=False)
    console.print(
        f"The data stay in {data}; `make demo-clean` removes them.", highlight=False, soft_wrap=True
    )
    return INTERRUPTED if once else 0


def _on_signals(act: Callable[[], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, act)


def clean(console: Console, data: Path) -> int:
    """Removes the data of this checkout's demonstration."""
    lock = data / "suite" / "lock"
    if lock.exists():
        with lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.print("The demonstration is running; stop it first.")
                return 1
    if not data.exists():
        console.print(f"Nothing to remove: there is no {data}", highlight=False, soft_wrap=True)
        return 0
    console.print(f"Removing {data}", highlight=False, soft_wrap=True)
    shutil.rmtree(data, ignore_errors=True)
    console.print("Removed")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the flags."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="unattended, one JSON object as the last line")
    parser.add_argument("--clean", action="store_true", help="remove the data and exit")
    parser.add_argument("--data-dir", type=Path, default=data_dir(), help="default: one of this checkout")
    arguments = parser.parse_args(argv)
    console, data = Console(stderr=arguments.once), arguments.data_dir
    if arguments.clean:
        return clean(console, data)
    console.print(f"Data: {data}", highlight=False, soft_wrap=True)
    try:
        with alone(data):
            return asyncio.run(run(console, data, once=arguments.once))
    except DemoError as error:
        told = str(error)
    except grpc.aio.AioRpcError as error:
        refusal = ServiceError.from_rpc_error(error)
        what = ", ".join(getattr(error, "__notes__", ["a call"]))
        told = f"{what}: {refusal.message} ({refusal.reason})\nThe log is {data / 'logs' / 'suite.log'}"
    console.print(told, style="red", highlight=False, markup=False, soft_wrap=True)
    return 1
