"""The life cycle of what runs in a process: start in order of needs, crash loudly, stop in reverse."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Final, Protocol

from tlsy.runtime.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

#: What a stopping part must leave of the grace to those that stop after it, where there is as much.
_KEPT_RATIO: Final = 0.25
_KEPT_S: Final = 1.0
#: What is cut off at the end of the grace, such as connections, is closed within less.
_OVERDUE_S: Final = 5.0


class Component(Protocol):
    """Something that runs until it is stopped."""

    @property
    def name(self) -> str:
        """Unique within its supervisor; what logs and `Part.needs` call it."""
        ...

    async def start(self) -> None:
        """Return once it runs. It must start with all its peers down: being unready is not a failure."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Take nothing new, finish what was begun within `grace_s` seconds, cut off the rest, return.

        Called once, only after `start` returned.
        """
        ...

    async def wait(self) -> None:
        """Return when it ended because it was stopped; raise why if it broke. Nothing is restarted."""
        ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether calls are welcome, and if not, everything that is missing."""

    missing: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.missing


class Service(Component, Protocol):
    """What `build(settings, host)` of a service's app.py returns."""

    def ready(self) -> Readiness:
        """Asked several times a second; must not wait for anything."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A component, and what it waits for.

    Attributes:
        component: itself.
        needs: names of those that must have started before it and must stop after it.
        after: names of those that must have started before it, and may stop when they like.
    """

    component: Component
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class Task:
    """A component made of one coroutine function, which gets an event that is set when it shall end.

    Stopping sets the event, waits out the grace, then cancels. A `run` that returns before it was asked to
    counts as broken, and so does one that is cancelled by what it waits for.
    """

    __slots__ = ("_name", "_run", "_stopping", "_task")

    def __init__(self, name: str, run: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        self._name = name
        self._run = run
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return self._name

    async def start(self) -> None:
        """Begin to run."""
        self._task = asyncio.create_task(self._guarded(), name=self._name)

    async def stop(self, grace_s: float) -> None:
        """Ask it to end; cancel it after `grace_s`. Raises what it broke of meanwhile."""
        self._stopping.set()
        if self._task is None or self._task.done():
            return
        done, _ = await asyncio.wait({self._task}, timeout=grace_s)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def wait(self) -> None:
        """See `Component.wait`."""
        if self._task is not None:
            # A bare await would hand our own cancellation on to the task.
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.result()
            elif not self._stopping.is_set():
                raise ComponentFailed(self._name, RuntimeError("was cancelled without being asked to end"))

    async def _guarded(self) -> None:
        await self._run(self._stopping)
        if not self._stopping.is_set():
            raise ComponentFailed(self._name, RuntimeError("ended without being asked to"))


class ComponentFailed(Exception):  # noqa: N818 - read as a fact in logs
    """A component broke; the process ends. `__cause__` says why."""

    def __init__(self, name: str, cause: BaseException) -> None:
        super().__init__(f"{name} failed: {type(cause).__name__}: {cause}")
        self.name = name
        self.__cause__ = cause


class Supervisor:
    """Runs parts as one service; itself a component, so that a host can supervise services the same way.

    Parts start as soon as all that they need has started, independent ones at the same time, and stop in the
    reverse order. The first part that breaks makes `wait` raise `ComponentFailed`; nothing is restarted: the
    process ends and whoever started it (Kubernetes, systemd) begins again from a known state. A part that
    fails to start stops those that did.
    """

    __slots__ = ("_checks", "_logger", "_name", "_order", "_overdue_s", "_parts", "_running", "_watchers")

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        *,
        checks: Sequence[Callable[[], str | None]] = (),
        overdue_s: float = _OVERDUE_S,
    ) -> None:
        """Wire the parts.

        Args:
            name: of the service.
            parts: names unique, needs without cycles.
            checks: each returns None, or what is still missing before calls are welcome.
            overdue_s: a part that has not stopped so long after its share of the grace is given up.

        Raises:
            ValueError: a name is there twice, is needed but missing, or needs form a cycle.
        """
        self._name = name
        self._checks = tuple(checks)
        self._overdue_s = overdue_s
        self._parts = {part.component.name: part for part in parts}
        if len(self._parts) != len(parts):
            raise ValueError(f"{name}: two parts have the same name")
        unknown = {need for part in parts for need in (*part.needs, *part.after)} - self._parts.keys()
        if unknown:
            raise ValueError(f"{name}: needed but not there: {', '.join(sorted(unknown))}")
        try:
            stopping = {key: set(part.needs) for key, part in self._parts.items()}
            self._order = tuple(TopologicalSorter(stopping).static_order())
            starting = {key: {*part.needs, *part.after} for key, part in self._parts.items()}
            TopologicalSorter(starting).prepare()
        except CycleError as error:
            raise ValueError(f"{name}: parts need each other: {' -> '.join(error.args[1])}") from error
        self._running: list[str] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._logger = get_logger("runtime.service")

    @property
    def name(self) -> str:
        """See `Component.name`."""
        return self._name

    def ready(self) -> Readiness:
        """Everything that its checks, and its parts that are services themselves, still miss."""
        missing = [reason for check in self._checks if (reason := check()) is not None]
        for part in self._parts.values():
            if isinstance(part.component, Supervisor):
                missing += [f"{part.component.name}: {reason}" for reason in part.component.ready().missing]
        return Readiness(tuple(missing))

    async def start(self) -> None:
        """Start all parts; on failure stop those that had started and raise `ComponentFailed`."""
        started = {name: asyncio.Event() for name in self._order}
        try:
            async with asyncio.TaskGroup() as group:
                for name in self._order:
                    group.create_task(self._start_part(name, started))
        except BaseExceptionGroup as group_error:
            await self.stop(0.0)
            first = group_error.exceptions[0]
            raise first from first.__cause__
        except asyncio.CancelledError:
            await self.stop(0.0)
            raise
        self._watchers = [asyncio.create_task(self._watch(name)) for name in self._order]

    async def stop(self, grace_s: float) -> None:
        """Stop all running parts in reverse order; the grace is for all of them together.

        A part that takes all the time that it gets leaves a share of it to those that stop after it: what
        they hold (denials, outboxes) is lost otherwise. So it would be behind one that never says that it has
        stopped, and nobody would know which that is.
        """
        for watcher in self._watchers:
            watcher.cancel()
        before = _cancellations()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        kept_s = max(grace_s * _KEPT_RATIO, _KEPT_S)
        order = sorted(self._running, key=self._order.index, reverse=True)
        for name in order:
            left_s = max(0.0, deadline - loop.time())
            if name != order[-1]:
                left_s = max(left_s - kept_s, left_s / 2)
            try:
                async with asyncio.timeout(left_s + self._overdue_s):
                    await self._parts[name].component.stop(left_s)
            except (Exception, asyncio.CancelledError) as error:
                if _ends_us(error, before):
                    raise
                self._logger.exception("component failed to stop", component_name=name, service=self._name)
        self._running.clear()

    async def wait(self) -> None:
        """Return when stopped; raise `ComponentFailed` with the first part that broke."""
        if not self._watchers:
            return
        done, _ = await asyncio.wait(self._watchers, return_when=asyncio.FIRST_EXCEPTION)
        for watcher in done:
            with contextlib.suppress(asyncio.CancelledError):
                watcher.result()

    async def _start_part(self, name: str, started: dict[str, asyncio.Event]) -> None:
        part = self._parts[name]
        for need in (*part.needs, *part.after):
            await started[need].wait()
        try:
            await part.component.start()
        except (Exception, asyncio.CancelledError) as error:
            if _ends_us(error):
                raise
            raise ComponentFailed(name, error) from error
        self._running.append(name)
        started[name].set()

    async def _watch(self, name: str) -> None:
        try:
            await self._parts[name].component.wait()
        except ComponentFailed:
            raise
        except (Exception, asyncio.CancelledError) as error:
            if _ends_us(error):
                raise
            raise ComponentFailed(name, error) from error


def _ends_us(error: BaseException, before: int = 0) -> bool:
    """Whether it is our own cancellation, and not that of what a part waited for, e.g. with its channel.

    `before`: cancellations that were there when we began, as of who stops what it could not start.
    """
    return isinstance(error, asyncio.CancelledError) and _cancellations() > before


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
