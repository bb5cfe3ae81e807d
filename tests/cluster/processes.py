"""For the first process of a process namespace: it starts others, and inherits and reaps what they leave."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from typing import TYPE_CHECKING, Final

from tests.cluster.plan import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import NoReturn

#: What to do about a machine that does not let its root do something.
MACHINE: Final = (
    "a cluster needs a machine whose kernel has it and whose root may do it: in a container, a privileged one"
)
_POLL_INTERVAL_S: Final = 0.05
#: Of a mount, a route or a rule; less than whoever waits for the cluster's start waits.
_RUN_TIMEOUT_S: Final = 60.0


class Processes:
    """What was started here, each with a log of its own; what ended is named by a file in `ended`."""

    def __init__(self, logs: Path, ended: Path) -> None:
        self._logs = logs
        self._ended = ended
        self._started: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
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
        # Kept: Python itself waits for what nobody holds any more, and how it ended is lost.
        self._started[process.pid] = (name, process)
        return process.pid

    def wait_until(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        """As `wait_until` below; meanwhile it is noted what ends."""

        def reaped() -> bool:
            self._reap()
            return condition()

        wait_until(reaped, what, timeout_s)

    def reap_forever(self) -> NoReturn:
        """Ends only by being killed, and all below it in the namespace with it."""
        while True:
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            self._reap()
            time.sleep(_POLL_INTERVAL_S)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] in self._started:
                    name, process = self._started.pop(ended[0])
                    process.returncode = os.waitstatus_to_exitcode(ended[1])
                    (self._ended / name).write_text(str(process.returncode))


def run(*command: str, keep: int | None = None, timeout_s: float = _RUN_TIMEOUT_S) -> None:
    """Runs a program to its end; it may get one open file of this process.

    Raises:
        ClusterError: it failed; with what it said. Or it did not end in time.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=timeout_s,
            pass_fds=() if keep is None else (keep,),
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{' '.join(command)}: did not end in {timeout_s:g} s") from None
    if done.returncode != 0:
        said = done.stderr.strip() or f"ended with {done.returncode}"
        raise ClusterError(f"{' '.join(command)}: {said}; {MACHINE}")


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
