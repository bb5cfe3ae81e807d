"""How a function becomes a command."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[..., Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name within its group, and the coroutine function that runs it.

    The function's first parameter is the Terminal, the others are arguments and options as typer reads them
    from the annotations; its docstring is the help.
    """

    name: str
    run: Run


def command(name: str) -> Callable[[Run], Command]:
    """Makes a function a command of its module's group."""

    def made(run: Run) -> Command:
        return Command(name, run)

    return made
