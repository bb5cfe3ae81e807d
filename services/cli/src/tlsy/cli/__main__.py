"""The `tlsy` program."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tlsy.cli.adapters.command_line import Options
    from tlsy.cli.handlers.command import Command
    from tlsy.cli.handlers.completion import Lookup


def _execute(command: Command, options: Options, arguments: dict[str, Any]) -> NoReturn:
    # gRPC is loaded when a command runs, not for its help.
    import logging  # noqa: PLC0415 - see above

    from tlsy.cli.app import Process, execute  # noqa: PLC0415 - see above

    # What goes wrong is told as an error; what libraries say of it meanwhile is not for who runs a command.
    logging.getLogger().addHandler(logging.NullHandler())
    _open_what_is_closed()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        # From here on a command may have something to say of where it was interrupted.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = Process(environ=os.environ, home=Path.home, stdin=sys.stdin, out=sys.stdout, err=sys.stderr)
    _end(execute(process, command, options, arguments))


def _complete(lookup: Lookup, options: Options) -> list[str]:
    # What goes wrong is told to nobody who is still typing: not by us, nor by gRPC, which writes by itself.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    from tlsy.cli.app import Process, complete  # noqa: PLC0415 - as above

    _open_what_is_closed()
    process = Process(environ=os.environ, home=Path.home, stdin=sys.stdin, out=sys.stdout, err=sys.stderr)
    return complete(process, lookup, options)


def _end(code: int) -> NoReturn:
    # An output that takes no more was told of.
    with suppress(OSError):
        sys.stdout.flush()
    # All is written and closed. gRPC's thread would be waited for while Python no longer lets threads run.
    os._exit(code)


def _open_what_is_closed() -> None:
    """Where the caller closed a stream, Python has none: nothing is read then, and a result is refused."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def main() -> None:
    """Runs the command line; exits with the codes that the README names."""
    # A reader that has seen enough (`tlsy … | head`) ends us quietly, as it does other programs.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # So does Ctrl-C while modules are loaded, and while a word is completed.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if isinstance(sys.stdout, TextIOWrapper):
        # A letter that the terminal's encoding has not is shown as "?"; none ends us.
        sys.stdout.reconfigure(errors="replace")
    from tlsy.cli.adapters.command_line import Program, command_line  # noqa: PLC0415 - see above

    try:
        command_line()(args=sys.argv[1:], prog_name="tlsy", obj=Program(_execute, _complete))
    except SystemExit as ended:
        if "grpc" in sys.modules:
            _end(int(ended.code or 0))
        raise


if __name__ == "__main__":
    main()
