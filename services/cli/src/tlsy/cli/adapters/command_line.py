"""The tree of commands. A group's module is loaded when one of its commands is asked for, not before."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from tlsy.cli.domain.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tlsy.cli.handlers.command import Command
    from tlsy.cli.handlers.completion import Lookup


Format = Literal["table", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every command takes.

    Attributes:
        context: "" is the one in use.
        tenant: "" is the context's.
        output: how results are shown.
        reason: why one acts in a tenant below; where none was given, the command's name.
    """

    context: str
    tenant: str
    output: Format
    reason: str


@dataclass(frozen=True, slots=True)
class Program:
    """What runs a command with its own arguments, and what completes a word by what servers know."""

    execute: Callable[[Command, Options, dict[str, Any]], int]
    complete: Callable[[Lookup, Options], list[str]]


@dataclass(frozen=True, slots=True)
class Group:
    """A group of commands, or a command by itself: its name and module, and what `tlsy --help` says."""

    name: str
    module: str
    about: str
    alone: bool = False


GROUPS: Final = (
    Group("apply", "apply", "Make countries and tenants as YAML documents say.", alone=True),
    Group("tenants", "tenants", "Customers and their subsidiaries."),
    Group("countries", "countries", "Roots of the hierarchy, and where their tenants' rows may be."),
    Group("clusters", "clusters", "PostgreSQL servers for tenants."),
    Group("modules", "modules", "Parts of the product that a tenant has switched on."),
    Group("entitlements", "entitlements", "A tenant's limits and flags."),
    Group("users", "users", "People of a tenant."),
    Group("roles", "roles", "Roles, and who has them."),
    Group("keys", "keys", "API keys of agents and programs."),
    Group("events", "events", "Supervision events: query, tail, send."),
    Group("rules", "rules", "Rules and their versions."),
    Group("incidents", "incidents", "What the rules found."),
    Group("login", "sessions", "Log in by password.", alone=True),
    Group("logout", "sessions", "Forget the context's tokens.", alone=True),
    Group("whoami", "sessions", "Who the servers take you for.", alone=True),
    Group("context", "contexts", "Installations known here, like kubectl's contexts."),
    Group("tenancy", "tenancy", "Check databases for what keeps tenants apart."),
    Group("dead-letters", "dead_letters", "Records that consumers refused: see, put back, discard."),
    Group("service-key", "service_keys", "Make a service's signing key, and what others trust.", alone=True),
    Group("doctor", "doctor", "Check this machine, the servers and the clock.", alone=True),
)

_ENDINGS: Final = ("delete", "revoke", "disable", "unbind", "discard")
#: What other programs call it: to be told is the first of these that a group has.
_SYNONYMS: Final[Mapping[str, tuple[str, ...]]] = {
    "acknowledge": ("ack",),
    "add": ("create", "publish", "bind"),
    "close": ("resolve",),
    "delete": _ENDINGS,
    "describe": ("get", "show"),
    "edit": ("update", "set"),
    "follow": ("tail", "watch"),
    "ls": ("list",),
    "remove": _ENDINGS,
    "rm": _ENDINGS,
    "show": ("get",),
}


def _named(text: str | None) -> str | None:
    # A variable that is not set, most likely: one's own tenant is not what was meant.
    if text == "":
        raise typer.BadParameter("it is empty. Name one, or leave the option out.")
    return text


def _format(text: str) -> str:
    # What typer itself says of what is no choice begins with the class of an error.
    if text not in get_args(Format):
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(map(repr, get_args(Format)))}.")
    return text


def _known_contexts(incomplete: str) -> list[str]:
    """Names that begin so; none where they cannot be read: no error helps who is still typing."""
    # Files and YAML are needed for no other help.
    from pathlib import Path  # noqa: PLC0415 - see above

    from tlsy.cli.adapters.files import LocalFiles, contexts_file  # noqa: PLC0415 - see above

    with suppress(CommandError, OSError):
        known = LocalFiles(contexts_file(os.environ, Path.home), sys.stdin).contexts().contexts
        return [name for name in known if name.startswith(incomplete)]
    return []


def _options(ctx: typer.Context) -> Options:
    """As they were given to the command, or before it."""
    at_root = ctx.find_root().params

    def chosen(name: str) -> Any:
        return ctx.params.get(name) or at_root.get(name) or ""

    return Options(
        context=chosen("global_context"),
        tenant=chosen("global_tenant"),
        output=chosen("global_output") or "table",
        reason=chosen("global_reason") or ctx.command_path,
    )


def _asked_for(what: str) -> Callable[[typer.Context], list[str]]:
    """Completes by what the servers know, as the command itself would ask them."""

    def complete(ctx: typer.Context) -> list[str]:
        # gRPC is loaded when there is something to ask for.
        from tlsy.cli.handlers.completion import LOOKUPS  # noqa: PLC0415 - see above

        return [name for name in ctx.obj.complete(LOOKUPS[what], _options(ctx)) if _PLAIN.fullmatch(name)]

    return complete


#: zsh evaluates what it is offered: one tenant's names must not run on another's machine.
_PLAIN: Final = re.compile(r"[\w.@+-]+", re.ASCII)
#: What is completed by what there is: arguments and options that are called so.
_COMPLETED: Final[Mapping[str, Callable[..., list[str]]]] = {
    "CONTEXT": _known_contexts,
    "CLUSTER": _asked_for("CLUSTER"),
    "INCIDENT": _asked_for("INCIDENT"),
    "PRINCIPAL": _asked_for("USER"),
    "RULE": _asked_for("RULE"),
    "TENANT": _asked_for("TENANT"),
    "USER": _asked_for("USER"),
}
_EVERYWHERE: Final = (
    (
        "global_context",
        Annotated[
            str | None,
            typer.Option(
                "--context",
                help="Which installation.",
                callback=_named,
                autocompletion=_known_contexts,
            ),
        ],
        None,
    ),
    (
        "global_tenant",
        Annotated[
            str | None,
            typer.Option(
                "--tenant",
                help="Which tenant to act in.",
                callback=_named,
                autocompletion=_COMPLETED["TENANT"],
            ),
        ],
        None,
    ),
    (
        "global_output",
        Annotated[Format | None, typer.Option("--output", "-o", help="Default: table.", parser=_format)],
        None,
    ),
    (
        "global_reason",
        Annotated[str, typer.Option("--reason", help="Why you act in a tenant below; it is audited.")],
        "",
    ),
)


class _Suggesting(TyperGroup):
    """Tells what may have been meant by a command that there is not: by its letters, typer does."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # typer's own Context
        here = self.list_commands(ctx)
        meant = [name for name in _SYNONYMS.get(args[0], ()) if name in here]
        if meant and args[0] not in here and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {meant[0]!r}?")
        return super().resolve_command(ctx, args)


class _Groups(_Suggesting):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        # By these names it looks for what was meant.
        self.commands = dict.fromkeys((group.name for group in GROUPS), self)

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's own Context
        del ctx
        return [group.name for group in GROUPS]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # as above
        group = next((group for group in GROUPS if group.name == cmd_name), None)
        if group is None:
            return None
        if ctx.invoked_subcommand is None and not ctx.meta.get(_RESOLVING):
            return TyperCommand(group.name, help=group.about, rich_markup_mode=None)
        return _load(group)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # as above
        ctx.meta[_RESOLVING] = True
        return super().resolve_command(ctx, args)


_RESOLVING: Final = "tlsy.resolving"


def command_line() -> Callable[..., Any]:
    """The whole tree; call it with `obj=Program`."""
    app = typer.Typer(
        name="tlsy",
        cls=_Groups,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    root = _signed(
        _root,
        "Operate TLS-Y: tenants, their people and keys, events, rules and incidents.",
        [
            *_globals(),
            _option(
                "version",
                Annotated[
                    bool,
                    typer.Option("--version", help="Say it and exit.", is_eager=True, callback=_say_version),
                ],
                False,
            ),
        ],
    )
    app.callback()(root)
    return get_command(app)


def _root(**_: Any) -> None:
    """Its options are looked up by the commands."""


def _say_version(asked: bool) -> None:  # noqa: FBT001 - typer passes it so
    if asked:
        # It reads the whole environment, which no other command needs to wait for.
        from importlib import metadata  # noqa: PLC0415 - see above

        typer.echo(metadata.version("tlsy-cli"))
        raise typer.Exit


def _load(group: Group) -> Any:
    module = importlib.import_module(f"tlsy.cli.handlers.{group.module}")
    # By its shape: the class of commands must not be loaded for the tree alone.
    commands = [value for value in vars(module).values() if type(value).__name__ == "Command"]
    if group.alone:
        commands = [each for each in commands if each.name == group.name]
    app = typer.Typer(
        name=group.name,
        cls=_Suggesting,
        help=group.about,
        rich_markup_mode=None,
        add_completion=False,
        no_args_is_help=True,
    )
    for each in commands:
        app.command(each.name, help=inspect.cleandoc(each.run.__doc__ or ""))(_bound(each))
    if not group.alone:
        app.callback()(_nothing)
    return get_command(app)


def _nothing() -> None:
    """A group does nothing by itself."""


def _bound(command: Command) -> Callable[..., None]:
    """The command as typer calls it: with the options that all commands take, and without the terminal."""
    hints = get_type_hints(command.run, include_extras=True)
    own = [
        parameter.replace(annotation=_completed(hints[parameter.name]), kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(inspect.signature(command.run).parameters.values())[1:]
    ]

    def call(ctx: typer.Context, **given: Any) -> None:
        arguments = {parameter.name: given[parameter.name] for parameter in own}
        raise typer.Exit(ctx.obj.execute(command, _options(ctx), arguments))

    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    return _signed(call, command.run.__doc__ or "", [context, *own, *_globals()])


def _completed(hint: Any) -> Any:
    for told in getattr(hint, "__metadata__", ()):
        if (complete := _COMPLETED.get(getattr(told, "metavar", None) or "")) is not None:
            told.autocompletion = complete
    return hint


def _globals() -> list[inspect.Parameter]:
    return [_option(name, annotation, default) for name, annotation, default in _EVERYWHERE]


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _signed(run: Callable[..., None], about: str, parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """A function that calls `run` and looks to typer as if it had these parameters."""

    def wrapped(**given: Any) -> None:
        run(**given)

    wrapped.__doc__ = about
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect reads
    return wrapped
