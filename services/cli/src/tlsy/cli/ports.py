"""What commands need: servers, a terminal, files, the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from grpc.aio import AioRpcError

    from tlsy.cli.domain.contexts import Context, ContextsFile
    from tlsy.cli.domain.errors import CommandError
    from tlsy.cli.domain.tokens import AccessToken
    from tlsy.contracts.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub
    from tlsy.contracts.ingestion.v1.ingestion_pb2_grpc import IngestionServiceAsyncStub
    from tlsy.contracts.rules_engine.v1.rules_engine_pb2_grpc import RulesEngineServiceAsyncStub
    from tlsy.contracts.tenant_registry.v1.tenant_registry_pb2_grpc import TenantRegistryServiceAsyncStub
    from tlsy.runtime.clock import Clock

Item = Message | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        header: upper case.
        path: into the item's JSON, dotted: "placement.cluster".
        last: how many parts of a resource name are shown, of its end: 1 is an id, 2 has what it is the id
            of ("users/ID"), 0 is the whole name.
        fold: a text that may go over several lines; what somebody copies, and what is short, does not.
        spare: on a screen that is too narrow it is left out, the highest first; 0 never is.
        zero: shown for 0, where that may also mean that nobody counted.
    """

    header: str
    path: str
    last: int = 0
    fold: bool = False
    spare: int = 0
    zero: str = "0"


class Output(Protocol):
    """Where results go: standard output as a table or as JSON; remarks go to standard error."""

    def items(self, items: Sequence[Item], columns: Sequence[Column]) -> None:
        """A list: a table, or one JSON array."""

    def item(self, item: Item) -> None:
        """One thing with all that is known of it, or one JSON object."""

    def streamed(self, item: Item, columns: Sequence[Column]) -> None:
        """One more of an endless list: a line, or a JSON object on a line."""

    def note(self, text: str) -> None:
        """A remark for people."""

    def aside(self, text: str) -> None:
        """A remark that only a person who reads a table needs; programs and pipes are spared it."""

    def progress(self, text: str) -> None:
        """What is being waited for; replaced by the next one, and never shown where nobody looks."""


class Session(Protocol):
    """The servers of the context, called as the context's principal.

    Stubs raise what gRPC raises. identity, ingestion and rules act in `tenant()`; where that is below the
    credential's own tenant, the token is exchanged for one of it.
    """

    @property
    def context(self) -> Context:
        """The context in use; raises UsageError where there is none."""

    async def tenant(self) -> str:
        """The tenant that is acted in: "tenants/{slug}"."""

    async def registry(self) -> TenantRegistryServiceAsyncStub:
        """The tenant registry."""

    async def identity(self) -> IdentityServiceAsyncStub:
        """Identity."""

    async def ingestion(self) -> IngestionServiceAsyncStub:
        """Ingestion."""

    async def rules(self) -> RulesEngineServiceAsyncStub:
        """The rules engine."""

    async def credential(self) -> AccessToken:
        """The token of the principal in its own tenant."""

    async def log_in(self, tenant: str, email: str, password: str) -> AccessToken:
        """Gets a token for a password and keeps it."""

    def log_out(self) -> int:
        """Forgets the context's tokens; returns how many there were."""

    def forget(self, context: str) -> int:
        """Forgets the tokens of a context by its name; returns how many there were."""

    def failure(self, error: AioRpcError) -> CommandError:
        """What a stub raised, as what happened and what to do next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the servers take the context for.

    Attributes:
        principal: whose the credential is.
        skew_s: seconds that the servers' clock was ahead of this one's when its token was issued; None if
            the token does not say.
    """

    principal: str
    skew_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service says of itself.

    Attributes:
        serving: whether it takes calls.
        lacks: methods that this command line knows and the server does not: it is older.
    """

    serving: bool
    lacks: tuple[str, ...]


class Diagnosis(Protocol):
    """What `doctor` asks; every method raises CommandError for what it cannot find out."""

    def free_bytes(self) -> int:
        """Room on the disk that holds the user's home; who has none works where the program was started."""

    def bind_loopback(self) -> None:
        """Takes a port for a moment."""

    def versions(self) -> Mapping[str, str]:
        """What runs here: Python, and the project's distributions."""

    async def ask(self, service: str) -> Answer:
        """Whether a service of the context is there."""

    async def identity(self) -> Identity:
        """Tries the context's credential; keeps nothing.

        Raises:
            NotLoggedInError: there is none, or it is not good any more.
        """

    async def lint(self, dsn: str) -> Sequence[Mapping[str, str]]:
        """What is wrong with a database's catalogue: code, object, message, fix."""


@dataclass(frozen=True, slots=True)
class LetterPlace:
    """Where dead letters are: brokers (see `Brokers.parse`), the records' topic, the group that refused."""

    brokers: str
    topic: str
    group: str


class Letters(Protocol):
    """Dead letters, in the order in which they were written. Methods raise CommandError."""

    async def pending(self, place: LetterPlace, limit: int) -> Sequence[Item]:
        """The oldest that nobody is done with."""

    async def letter(self, place: LetterPlace, number: int) -> Item:
        """One of those."""

    async def replay(self, place: LetterPlace, through: int) -> int:
        """Puts back the records of all up to that one; returns how many."""

    async def discard(self, place: LetterPlace, through: int) -> int:
        """Is done with all up to that one; returns how many."""


class Files(Protocol):
    """This machine's files and standard input."""

    def contexts(self) -> ContextsFile:
        """The contexts file; an empty one if it is missing."""

    def contexts_in(self, path: Path) -> ContextsFile:
        """Another contexts file, its paths made absolute."""

    def write_contexts(self, contexts: ContextsFile) -> None:
        """Replaces the contexts file; readable by its owner only."""

    def documents(self, path: Path, problems: list[str]) -> Iterator[tuple[str, Any]]:
        """The YAML documents in a file or, sorted by name, in a directory's; each with where it is from.

        What cannot be read, or is no YAML, is added to `problems` and keeps no other from being read.
        """

    def text(self, path: Path) -> bytes:
        """A file's content; "-" is standard input."""

    def are_typed(self) -> bool:
        """Whether standard input's lines come from a person at a terminal."""

    def batches(self, most: int, within_s: float) -> AsyncIterator[Sequence[tuple[int, str]]]:
        """Standard input's lines with their numbers: those that come within that time of a first one."""

    def new_secret(self, path: Path) -> AbstractContextManager[TextIO]:
        """Makes a new file, readable by its owner only, before its content is had; gone again on an error."""

    def ask_secret(self, prompt: str) -> str:
        """What somebody types without it being shown; standard input's first line where nobody is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What a command is given beside its own options.

    Attributes:
        context_name: as chosen by --context; "" for the one in use.
        tenant: as chosen by --tenant; "" for the context's.
    """

    output: Output
    session: Session
    files: Files
    diagnosis: Diagnosis
    letters: Letters
    clock: Clock
    new_id: Callable[[], str]
    context_name: str
    tenant: str
