"""Wires one command: its files, its terminal, and its servers."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

import grpc

from tlsy.cli.adapters.files import LocalFiles, contexts_file
from tlsy.cli.adapters.letters import BrokerLetters
from tlsy.cli.adapters.machine import Machine
from tlsy.cli.adapters.rendering import Rendering
from tlsy.cli.adapters.session import GrpcSession
from tlsy.cli.adapters.token_cache import TokenCache
from tlsy.cli.domain.errors import CommandError, NotLoggedInError, UsageError
from tlsy.cli.ports import Terminal
from tlsy.runtime.clock import SystemClock
from tlsy.runtime.ids import Uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tlsy.cli.adapters.command_line import Options
    from tlsy.cli.handlers.command import Command
    from tlsy.cli.handlers.completion import Lookup

_INTERRUPTED: Final = 130
_TOKENS: Final = "tokens.json"
#: Who types does not wait longer for what a word may become.
_COMPLETION_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What the program was started with."""

    environ: Mapping[str, str]
    home: Callable[[], Path]
    stdin: TextIO
    out: TextIO
    err: TextIO


def execute(process: Process, command: Command, options: Options, arguments: dict[str, Any]) -> int:
    """Runs a command to its end; returns the exit code."""
    output = Rendering(process.out, process.err, options.output)
    try:
        asyncio.run(_run(process, command, options, arguments, output))
    except CommandError as error:
        return _failed(output, error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    finally:
        output.close()
    return 0


def complete(process: Process, lookup: Lookup, options: Options) -> list[str]:
    """What a lookup finds, asked for as a command with these options would; nothing where that fails."""
    try:
        return asyncio.run(_looked_up(process, lookup, options))
    except Exception:  # noqa: BLE001 - whatever it is, an error does not help who is still typing
        return []


async def _looked_up(process: Process, lookup: Lookup, options: Options) -> list[str]:
    file = contexts_file(process.environ, process.home)
    files = LocalFiles(file, process.stdin)
    session = _session(files, file, SystemClock(), options, lambda _: None)
    try:
        async with asyncio.timeout(_COMPLETION_S):
            return await lookup(session)
    finally:
        await session.close()


def _session(
    files: LocalFiles, file: Path, clock: SystemClock, options: Options, tell: Callable[[str], None]
) -> GrpcSession:
    return GrpcSession(
        lambda: files.contexts().chosen(options.context),
        TokenCache(file.parent / _TOKENS),
        clock,
        os.urandom,
        tenant=options.tenant,
        reason=options.reason,
        tell=tell,
    )


async def _run(
    process: Process, command: Command, options: Options, arguments: dict[str, Any], output: Rendering
) -> None:
    clock, file = SystemClock(), contexts_file(process.environ, process.home)
    files = LocalFiles(file, process.stdin)
    ids = Uuid7(clock, os.urandom)
    session = _session(files, file, clock, options, output.aside)
    terminal = Terminal(
        output=output,
        session=session,
        files=files,
        diagnosis=Machine(session, clock, process.home),
        letters=BrokerLetters(clock),
        clock=clock,
        new_id=lambda: str(ids()),
        context_name=options.context,
        tenant=options.tenant,
    )
    try:
        await command.run(terminal, **arguments)
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{error.object!r} is no text in UTF-8.", "Write it in UTF-8; see what `locale` says."
        ) from error
    except grpc.aio.AioRpcError as error:
        failure = session.failure(error)
        if isinstance(failure, NotLoggedInError):
            # A kept token may be what was refused; the next run gets a new one.
            session.log_out()
        raise failure from error
    finally:
        await session.close()


def _failed(output: Rendering, error: CommandError) -> int:
    output.note("\n".join([f"error: {error.what}", *(f"  {detail}" for detail in error.details)]))
    output.note(f"next: {error.next_step}")
    return error.exit_code
