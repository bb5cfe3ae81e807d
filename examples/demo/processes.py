"""The processes of the demonstration: the suite, and an agent per tenant."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import signal
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
_READY_TIMEOUT_S: Final = 120.0
_STOP_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.05


def data_dir() -> Path:
    """Where this checkout's demonstration keeps its data.

    In the checkout; for root below /var/lib, because PostgreSQL's own user must be able to reach it.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/tlsy") / f"demo-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"
    return ROOT / ".tlsy" / "demo"


class DemoError(Exception):
    """The demonstration cannot go on; the message says why and what to look at."""


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Keeps another demonstration off the same data.

    Raises:
        DemoError: one runs already.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise DemoError(
                f"A demonstration runs in this clone already (pid {lock.read()}): end it with Ctrl-C"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@dataclass(frozen=True, slots=True)
class Running:
    """Where a running suite listens."""

    services: Mapping[str, str]
    brokers: tuple[str, ...]
    postgres: str
    api_key_file: Path


class Processes:
    """Starts and ends them, by the pids it started; their output goes to log files beside the data."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.logs = data / "logs"
        self._started: list[tuple[str, asyncio.subprocess.Process]] = []

    async def start_suite(self) -> Running:
        """Starts the suite and returns once it is ready.

        Raises:
            DemoError: it ended or was not ready in time.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        run_file = self.data / "suite" / "run.json"
        run_file.unlink(missing_ok=True)
        process = await self._start("suite", "tlsy.embedded", "--data-dir", str(self.data / "suite"))
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_TIMEOUT_S):
                while process.returncode is None:
                    if run_file.exists():
                        return _running(json.loads(run_file.read_text()))
                    await asyncio.sleep(_POLL_S)
        log = self.logs / "suite.log"
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise DemoError(
            "\n".join(["the suite did not get ready:", *map(_as_told, last), f"Its log is {log}"])
        )

    async def start_agent(self, slug: str, config: Mapping[str, Any]) -> None:
        """Starts a tenant's agent with this configuration."""
        path = self.data / "agents" / f"{slug}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        await self._start(f"agent-{slug}", "tlsy.agent", "--config", str(path))

    def broken(self) -> str | None:
        """What ended by itself, if anything did."""
        for name, process in self._started:
            if process.returncode is not None:
                return f"{name} ended with {process.returncode}; its log is {self.logs / name}.log"
        return None

    async def stop(self) -> None:
        """Ends all, agents first, and waits until they are gone."""
        agents = [process for name, process in self._started if name != "suite"]
        suites = [process for name, process in self._started if name == "suite"]
        for group in (agents, suites):
            await asyncio.gather(*(_end(process) for process in group))
        self._started.clear()

    async def _start(self, name: str, module: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self.logs / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", module, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is ours to pass on, in order.
                start_new_session=True,
            )
        self._started.append((name, process))
        return process


def _as_told(line: str) -> str:
    """A line of a log as a person reads it: what happened, and the end of the stack that says why."""
    try:
        told = json.loads(line)
    except ValueError:
        return line
    why = str(told.get("exception") or told.get("error") or "").strip().splitlines()[-1:]
    return ": ".join([told["event"], *why])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _running(told: Mapping[str, Any]) -> Running:
    return Running(
        services=told["services"],
        brokers=tuple(told["brokers"]),
        postgres=told["postgres"],
        api_key_file=Path(told["api_key_file"]),
    )
