"""For the first process of a process namespace: it starts others, and inherits and reaps what they leave."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import NoReturn

_POLL_INTERVAL_S: Final = 0.05


class Processes:
    """What was started here, each with a log of its own; what ended is named by a file in `ended`."""

    def __init__(self, logs: Path, ended: Path) -> None:
        self._logs = logs
        self._ended = ended
        self._names: dict[int, str] = {}
        for folder in (logs, ended):
            folder.mkdir(exist_ok=True)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
        """Starts a program; its process id."""
        with (self._logs / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        self._names[process.pid] = name
        return process.pid

    def reap_forever(self) -> NoReturn:
        """Ends only by being killed, and all below it in the namespace with it."""
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                time.sleep(_POLL_INTERVAL_S)
                continue
            name = self._names.pop(pid, None)
            if name is not None:
                (self._ended / name).write_text(str(os.waitstatus_to_exitcode(status)))


def run(*command: str, keep: int | None = None) -> None:
    """Runs a program to its end; it may get one open file of this process.

    Raises:
        subprocess.CalledProcessError: it failed; why is on standard error.
    """
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, pass_fds=() if keep is None else (keep,))


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> None:
    """Waits for a condition.

    Raises:
        TimeoutError: it was not met in time; the message is `what`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not in {timeout_s:.0f} s")
        time.sleep(_POLL_INTERVAL_S)
