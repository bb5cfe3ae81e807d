from __future__ import annotations

import asyncio

import pytest

from tlsy.runtime.service import ComponentFailed, Part, Supervisor, Task


class Recorded:
    """A component that writes down what happens to it."""

    def __init__(self, name: str, log: list[str], *, fails: str = "") -> None:
        self.name = name
        self._log = log
        self._fails = fails
        self.broken = asyncio.Event()
        self.stopped = asyncio.Event()

    async def start(self) -> None:
        if self._fails == "start":
            raise OSError("no door")
        await asyncio.sleep(0)
        self._log.append(f"+{self.name}")

    async def stop(self, grace_s: float) -> None:
        self.stopped.set()
        self._log.append(f"-{self.name}")
        if self._fails == "stop":
            raise OSError("door stuck")

    async def wait(self) -> None:
        await self.broken.wait()
        raise OSError("roof fell")


def shop(log: list[str], *needs: tuple[str, ...], fails: dict[str, str] | None = None):
    """Components a, b, c … of which each needs what is listed for it."""
    names = "abcdefg"[: len(needs)]
    made = [Recorded(name, log, fails=(fails or {}).get(name, "")) for name in names]
    return made, Supervisor("shop", [Part(*pair) for pair in zip(made, needs, strict=True)])


async def test_what_is_needed_starts_before_and_stops_after():
    log: list[str] = []
    _, supervisor = shop(log, ("b",), ("c",), ())
    await supervisor.start()
    await supervisor.stop(1)
    assert log == ["+c", "+b", "+a", "-a", "-b", "-c"]


async def test_what_only_begins_after_another_may_stop_after_it_too():
    log: list[str] = []
    late = Part(Recorded("late", log), after=("first",))
    supervisor = Supervisor(
        "shop", [late, Part(Recorded("base", log)), Part(Recorded("first", log), ("base",))]
    )
    await supervisor.start()
    await supervisor.stop(1)
    assert log[:3] == ["+base", "+first", "+late"]
    assert log.index("-first") < log.index("-late")


async def test_independent_parts_start_at_the_same_time():
    both = asyncio.Barrier(2)

    class Meeting(Recorded):
        async def start(self) -> None:
            await asyncio.wait_for(both.wait(), 60)

    supervisor = Supervisor("shop", [Part(Meeting("a", [])), Part(Meeting("b", []))])
    await supervisor.start()


@pytest.mark.parametrize(
    ("needs", "problem"),
    [((("b",), ("a",)), "need each other"), ((("x",),), "needed but not there: x")],
)
def test_needs_that_cannot_be_met_are_refused(needs, problem):
    with pytest.raises(ValueError, match=problem):
        shop([], *needs)


def test_parts_that_begin_after_each_other_are_refused():
    parts = [Part(Recorded("a", []), needs=("b",)), Part(Recorded("b", []), after=("a",))]
    with pytest.raises(ValueError, match="need each other"):
        Supervisor("shop", parts)


def test_two_parts_of_one_name_are_refused():
    with pytest.raises(ValueError, match="same name"):
        Supervisor("shop", [Part(Recorded("a", [])), Part(Recorded("a", []))])


async def test_a_part_that_cannot_start_stops_those_that_did():
    log: list[str] = []
    _, supervisor = shop(log, (), ("a",), ("b",), fails={"b": "start"})
    with pytest.raises(ComponentFailed, match="b failed: OSError: no door"):
        await supervisor.start()
    assert log == ["+a", "-a"]


async def test_why_a_part_cannot_start_is_told_with_where_that_was():
    inner = shop([], (), fails={"a": "start"})[1]
    for supervisor in (shop([], (), fails={"a": "start"})[1], Supervisor("street", [Part(inner)])):
        with pytest.raises(ComponentFailed, match="no door") as failed:
            await supervisor.start()
        root = failed.value.__cause__
        while isinstance(root, ComponentFailed):
            root = root.__cause__
        assert isinstance(root, OSError)


async def test_the_first_part_that_breaks_is_named():
    made, supervisor = shop([], (), ())
    await supervisor.start()
    waiting = asyncio.create_task(supervisor.wait())
    made[1].broken.set()
    with pytest.raises(ComponentFailed, match="b failed: OSError: roof fell"):
        await asyncio.wait_for(waiting, 60)
    await supervisor.stop(0)


async def test_a_part_that_cannot_stop_does_not_keep_the_others():
    log: list[str] = []
    _, supervisor = shop(log, (), ("a",), fails={"b": "stop"})
    await supervisor.start()
    await supervisor.stop(1)
    assert log[-2:] == ["-b", "-a"]


class Stuck(Recorded):
    """A component that never says that it has stopped."""

    async def stop(self, grace_s: float) -> None:
        await super().stop(grace_s)
        await asyncio.Event().wait()


@pytest.mark.parametrize("fails", ["", "start"])
async def test_a_part_that_does_not_stop_in_its_time_is_named_and_does_not_keep_the_others(log_lines, fails):
    log: list[str] = []
    parts = [Part(Recorded("a", log)), Part(Stuck("b", log), ("a",)), Part(Recorded("c", log), ("b",))]
    if fails:
        parts.append(Part(Recorded("d", log, fails=fails), ("c",)))
    supervisor = Supervisor("shop", parts, overdue_s=0.05)
    async with asyncio.timeout(30):
        if fails:
            with pytest.raises(ComponentFailed, match="no door"):
                await supervisor.start()
        else:
            await supervisor.start()
            await supervisor.stop(0.05)
    assert log == ["+a", "+b", "+c", "-c", "-b", "-a"]
    (line,) = log_lines
    assert (line["component_name"], line["event"]) == ("b", "component failed to stop")
    assert "TimeoutError" in line["exception"]


@pytest.mark.parametrize(("grace_s", "first_s"), [(20, 15), (2, 1), (0.4, 0.2), (0, 0)])
async def test_a_part_leaves_time_to_those_that_stop_after_it(grace_s, first_s):
    got: list[float] = []

    class Slow(Recorded):
        async def stop(self, grace_s: float) -> None:
            got.append(grace_s)

    supervisor = Supervisor("shop", [Part(Slow("a", [])), Part(Slow("b", []), needs=("a",))])
    await supervisor.start()
    await supervisor.stop(grace_s)
    assert got == pytest.approx([first_s, grace_s], abs=0.1)


class CancelledWithin(Recorded):
    """What it waits for is cancelled, e.g. a call whose channel is closed."""

    async def start(self) -> None:
        await self._do("start")
        await super().start()

    async def stop(self, grace_s: float) -> None:
        await self._do("stop")
        await super().stop(grace_s)

    async def wait(self) -> None:
        await self._do("wait")
        await super().wait()

    async def _do(self, step: str) -> None:
        if step == self._fails:
            call = asyncio.get_running_loop().create_future()
            call.cancel()
            await call


async def test_a_part_whose_start_is_cancelled_within_has_failed_to_start():
    parts = [Part(CancelledWithin("a", [], fails="start")), Part(Recorded("b", []), needs=("a",))]
    with pytest.raises(ComponentFailed, match="a failed: CancelledError"):
        await asyncio.wait_for(Supervisor("shop", parts).start(), 5)


async def test_a_part_that_is_cancelled_within_has_broken():
    parts = [Part(CancelledWithin("a", [], fails="wait")), Part(Recorded("b", []))]
    supervisor = Supervisor("shop", parts)
    await supervisor.start()
    with pytest.raises(ComponentFailed, match="a failed: CancelledError"):
        await asyncio.wait_for(supervisor.wait(), 5)
    await supervisor.stop(0)


async def test_a_part_whose_stop_is_cancelled_within_does_not_keep_the_others(log_lines):
    log: list[str] = []
    parts = [Part(Recorded("a", log)), Part(CancelledWithin("b", log, fails="stop"), needs=("a",))]
    supervisor = Supervisor("shop", parts)
    await supervisor.start()
    await supervisor.stop(1)
    assert log[-1] == "-a"
    assert [line["component_name"] for line in log_lines.of("component failed to stop")] == ["b"]


async def test_who_waits_is_told_nothing_when_all_was_stopped():
    _, supervisor = shop([], (), ())
    await supervisor.start()
    waiting = asyncio.create_task(supervisor.wait())
    await asyncio.sleep(0)
    await supervisor.stop(1)
    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize("kind", [Recorded, CancelledWithin])
async def test_whose_start_is_cancelled_stops_all_that_had_started(kind):
    log: list[str] = []

    class Slow(Recorded):
        async def start(self) -> None:
            await asyncio.Event().wait()

    parts = [
        Part(Recorded("a", log)),
        Part(kind("b", log, fails="stop"), ("a",)),
        Part(Slow("c", log), ("b",)),
    ]
    starting = asyncio.create_task(Supervisor("shop", parts).start())
    async with asyncio.timeout(5):
        while log != ["+a", "+b"]:
            await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert log[-1] == "-a"


async def test_who_is_cancelled_while_parts_stop_is_not_kept():
    class Slow(Recorded):
        async def stop(self, grace_s: float) -> None:
            await asyncio.Event().wait()

    supervisor = Supervisor("shop", [Part(Slow("a", []))])
    await supervisor.start()
    stopping = asyncio.create_task(supervisor.stop(1))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, 5)


async def test_supervisors_supervise_supervisors():
    log: list[str] = []
    made, inner = shop(log, ())
    outer = Supervisor("street", [Part(inner)])
    await outer.start()
    waiting = asyncio.create_task(outer.wait())
    made[0].broken.set()
    with pytest.raises(ComponentFailed, match="a failed"):
        await asyncio.wait_for(waiting, 60)
    await outer.stop(0)


async def test_readiness_names_everything_that_is_missing():
    missing = {"catalogue": "the catalogue", "keys": None}
    checks = [lambda: missing["catalogue"], lambda: missing["keys"]]
    inner = Supervisor("shop", [], checks=checks)
    outer = Supervisor("street", [Part(inner)], checks=[lambda: "rain"])
    assert outer.ready().missing == ("rain", "shop: the catalogue")
    missing["catalogue"] = None
    assert inner.ready()


async def test_a_task_ends_when_it_is_asked_to():
    async def run(stopping: asyncio.Event) -> None:
        await stopping.wait()

    task = Task("t", run)
    await task.start()
    await task.stop(5)
    await task.wait()


async def test_a_task_that_does_not_listen_is_cancelled_after_the_grace():
    cancelled = asyncio.Event()

    async def run(_: asyncio.Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = Task("t", run)
    await task.start()
    await asyncio.sleep(0)
    await task.stop(0.01)
    assert cancelled.is_set()


async def test_a_task_that_breaks_while_it_ends_is_told(log_lines):
    async def run(stopping: asyncio.Event) -> None:
        await stopping.wait()
        raise OSError("till stuck")

    supervisor = Supervisor("shop", [Part(Task("t", run))])
    await supervisor.start()
    await supervisor.stop(5)
    (told,) = log_lines
    assert (told["component_name"], "till stuck" in told["exception"]) == ("t", True)


async def test_a_task_that_broke_before_is_not_told_again_when_it_is_stopped(log_lines):
    async def run(_: asyncio.Event) -> None:
        raise OSError("roof fell")

    supervisor = Supervisor("shop", [Part(Task("t", run))])
    await supervisor.start()
    with pytest.raises(ComponentFailed):
        await asyncio.wait_for(supervisor.wait(), 60)
    await supervisor.stop(5)
    assert log_lines.text == ""


async def end(_: asyncio.Event) -> None:
    return


async def be_cancelled(_: asyncio.Event) -> None:
    """As who waits for a call whose channel is closed."""
    raise asyncio.CancelledError


@pytest.mark.parametrize("run", [end, be_cancelled])
async def test_a_task_that_ends_unasked_has_broken(run):
    supervisor = Supervisor("shop", [Part(Task("t", run))])
    await supervisor.start()
    with pytest.raises(ComponentFailed, match="without being asked to"):
        await asyncio.wait_for(supervisor.wait(), 60)
    await supervisor.stop(0)
