"""Files, standard input and what a person types."""

from __future__ import annotations

import getpass
import os
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import yaml

from tlsy.cli.adapters.standard_input import MAX_BYTES, StandardInput
from tlsy.cli.adapters.yaml_documents import documents_in
from tlsy.cli.domain.contexts import ContextsFile, dump, parse
from tlsy.cli.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

_STANDARD_INPUT: Final = "-"


def contexts_file(environ: Mapping[str, str], home: Callable[[], Path]) -> Path:
    """Where contexts are kept: TLSY_CONFIG, else ~/.config/tlsy/config.yaml.

    Raises:
        UsageError: it would be in a home directory, and there is none.
    """
    named = environ.get("TLSY_CONFIG")
    if named:
        return Path(named)
    folder = environ.get("XDG_CONFIG_HOME")
    try:
        return (Path(folder) if folder else home() / ".config") / "tlsy" / "config.yaml"
    except RuntimeError as error:
        # As in a container that runs as a user whom it does not know.
        raise UsageError(
            "There is no home directory to keep contexts in.",
            "Set HOME, or let TLSY_CONFIG name a contexts file.",
        ) from error


class LocalFiles:
    """The `Files` port."""

    def __init__(self, contexts_file: Path, stdin: TextIO) -> None:
        self._contexts_file = contexts_file
        self._stdin = StandardInput(stdin)

    def contexts(self) -> ContextsFile:
        """See `Files.contexts`."""
        if not self._contexts_file.exists():
            return ContextsFile(missing=str(self._contexts_file))
        return self.contexts_in(self._contexts_file)

    def contexts_in(self, path: Path) -> ContextsFile:
        """See `Files.contexts_in`."""
        problems: list[str] = []
        found = list(documents_in(self.text(path), str(path), problems))
        problems += [f"{place}: a second document" for place, _ in found[1:]]
        if problems:
            raise UsageError(f"{path} has {len(problems)} problem(s).", "Correct the file.", problems)
        known = parse(found[0][1] if found else None, str(path))
        folder = path.absolute().parent
        return ContextsFile(
            known.current,
            {
                name: replace(
                    context,
                    # An absolute path stays as it is.
                    api_key_file=str(folder / context.api_key_file) if context.api_key_file else "",
                    ca_file=str(folder / context.ca_file) if context.ca_file else "",
                    file=str(path) if name == known.current else "",
                )
                for name, context in known.contexts.items()
            },
        )

    def write_contexts(self, contexts: ContextsFile) -> None:
        """See `Files.write_contexts`."""
        write_private(
            # Who keeps the file elsewhere has a link to it here.
            Path(os.path.realpath(self._contexts_file)),
            yaml.safe_dump(dump(contexts), sort_keys=False, allow_unicode=True),
        )

    def documents(self, path: Path, problems: list[str]) -> Iterator[tuple[str, Any]]:
        """See `Files.documents`."""
        try:
            files = [path]
            if path.is_dir():
                files = sorted(p for p in path.iterdir() if p.suffix in {".yaml", ".yml"})
                if not files:
                    problems.append(f"{path} holds no YAML file.")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror}.")
            return
        for file in files:
            try:
                text = self.text(file)
            except UsageError as error:
                problems.append(error.what)
            else:
                yield from documents_in(text, str(file), problems)

    def text(self, path: Path) -> bytes:
        """See `Files.text`."""
        if str(path) == _STANDARD_INPUT:
            return self._stdin.whole()
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UsageError(f"{path} is larger than {MAX_BYTES} bytes.", "Split it.")
            return path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"{path} cannot be read: {error.strerror}.", "Check its name and its mode."
            ) from error

    def are_typed(self) -> bool:
        """See `Files.are_typed`."""
        return self._stdin.is_terminal()

    def batches(self, most: int, within_s: float) -> AsyncIterator[Sequence[tuple[int, str]]]:
        """See `Files.batches`."""
        return self._stdin.batches(most, within_s)

    @contextmanager
    def new_secret(self, path: Path) -> Iterator[TextIO]:
        """See `Files.new_secret`."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            todo = (
                "Name a file that does not exist yet."
                if isinstance(error, FileExistsError)
                else "Name one in a directory that is there and that you may write to."
            )
            raise UsageError(f"{path} cannot be made: {error.strerror}.", todo) from error
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                yield file
        except BaseException as error:
            path.unlink()
            if isinstance(error, OSError):
                raise UsageError(
                    f"{path} cannot be written: {error.strerror}. The secret is lost.",
                    "Make room and make another; an API key is there already: revoke it (tlsy keys revoke).",
                ) from error
            raise

    def ask_secret(self, prompt: str) -> str:
        """See `Files.ask_secret`."""
        secret = getpass.getpass(prompt) if self._stdin.is_terminal() else self._stdin.first_line()
        if not secret:
            raise UsageError("No password was given.", "Type one, or put it on standard input.")
        return secret


def write_private(path: Path, text: str) -> None:
    """Replaces a file at once, readable by its owner only.

    Raises:
        UsageError: it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        scratch.replace(path)
    except OSError as error:
        with suppress(OSError):
            scratch.unlink()
        raise UsageError(
            f"{path} cannot be written: {error.strerror}.",
            "Have it be a file that you may write, or set TLSY_CONFIG to one in another directory.",
        ) from error
