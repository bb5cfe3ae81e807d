"""tlsy rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from grpc.aio import AioRpcError

from tlsy.cli.domain.errors import RefusedError, UsageError
from tlsy.cli.domain.names import within
from tlsy.cli.handlers.command import command
from tlsy.cli.handlers.paging import Limit, paged
from tlsy.cli.ports import Column, Terminal
from tlsy.contracts.rules_engine.v1 import rules_engine_pb2
from tlsy.rpc.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RULES: Final = (
    Column("NAME", "name", last=1),
    Column("TYPE", "eventType", spare=1),
    Column("ENABLED", "enabled"),
    Column("VERSION", "liveVersion", last=1, spare=2),
    Column("UPDATED", "updateTime", spare=3),
)
_VERSIONS: Final = (
    Column("VERSION", "name", last=1),
    Column("LIVE", "live"),
    Column("CREATED", "createTime", spare=1),
    Column("AUTHOR", "author", last=2, fold=True, spare=2),
)
_CHANGES: Final = (
    Column("AT", "pointer"),
    Column("OLD", "oldValue", fold=True),
    Column("NEW", "newValue", fold=True),
)
_FIELDS: Final = (
    Column("TYPE", "eventType"),
    Column("FIELD", "path"),
    Column("TYPES", "types", fold=True),
    Column("LAST SEEN", "lastSeenTime", spare=1),
)

Id = Annotated[str, typer.Argument(metavar="RULE", help="The rule's id.")]
Document = Annotated[Path, typer.Argument(metavar="FILE", help="A JSON document; - is standard input.")]


@command("validate")
async def validate_rule(terminal: Terminal, file: Document) -> None:
    """Check a document against the fields that this tenant's events have; changes nothing."""
    terminal.output.item(await _validated(terminal, file, terminal.files.text(file)))


@command("publish")
async def publish_rule(
    terminal: Terminal,
    file: Document,
    *,
    name: Annotated[str, typer.Option(help='Default: the document\'s "name".')] = "",
) -> None:
    """Make a document the live version of a rule."""
    document = terminal.files.text(file)
    rules = await terminal.session.rules()
    request = rules_engine_pb2.PublishRuleRequest(
        name=within(await terminal.session.tenant(), "rules", name or _name_in(document, file)),
        document=document,
    )
    try:
        rule = await rules.PublishRule(request)
    except AioRpcError as error:
        # As `validate` does: also of a document whose name cannot be a rule's, which is not looked into.
        if ServiceError.from_rpc_error(error).violations:
            await _validated(terminal, file, document)
        raise
    terminal.output.item(rule)


@command("list")
async def list_rules(terminal: Terminal, *, limit: Limit = 1000) -> None:
    """The tenant's rules."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.ListRulesRequest(parent=await terminal.session.tenant())
    found = await paged(rules.ListRules, request, "rules", limit, terminal.output)
    terminal.output.items(found, _RULES)


@command("get")
async def get_rule(terminal: Terminal, rule: Id) -> None:
    """One rule with its live document."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.GetRuleRequest(name=await _rule(terminal, rule))
    terminal.output.item(await rules.GetRule(request))


@command("versions")
async def list_versions(terminal: Terminal, rule: Id, *, limit: Limit = 100) -> None:
    """A rule's versions, newest first."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.ListRuleVersionsRequest(parent=await _rule(terminal, rule))
    found = await paged(rules.ListRuleVersions, request, "rule_versions", limit, terminal.output)
    terminal.output.items(found, _VERSIONS)


@command("diff")
async def diff_versions(
    terminal: Terminal,
    rule: Id,
    old: Annotated[str, typer.Argument(help="Hash; its first 8 digits are enough.")],
    new: Annotated[str, typer.Argument(help="The same.")],
) -> None:
    """What changed between two versions."""
    rules = await terminal.session.rules()
    name = await _rule(terminal, rule)
    request = rules_engine_pb2.DiffRuleVersionsRequest(
        old_version=f"{name}/versions/{old}", new_version=f"{name}/versions/{new}"
    )
    terminal.output.items((await rules.DiffRuleVersions(request)).changes, _CHANGES)


@command("rollback")
async def rollback_rule(
    terminal: Terminal,
    rule: Id,
    *,
    to: Annotated[str, typer.Option(help="Hash; default: the version that was live before.")] = "",
) -> None:
    """Make an earlier version live again."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.RollbackRuleRequest(name=await _rule(terminal, rule), version_id=to)
    terminal.output.item(await rules.RollbackRule(request))


@command("disable")
async def disable_rule(terminal: Terminal, rule: Id) -> None:
    """Stop a rule; its versions stay, and publishing or rolling back starts it again."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.DisableRuleRequest(name=await _rule(terminal, rule))
    terminal.output.item(await rules.DisableRule(request))


@command("fields")
async def list_fields(
    terminal: Terminal, *, type_: Annotated[str, typer.Option("--type", help="Only of this event type.")] = ""
) -> None:
    """The fields that this tenant's events have had: what a rule may name."""
    rules = await terminal.session.rules()
    request = rules_engine_pb2.ListObservedFieldsRequest(
        parent=await terminal.session.tenant(), event_type=type_
    )
    terminal.output.items((await rules.ListObservedFields(request)).fields, _FIELDS)


async def _validated(
    terminal: Terminal, file: Path, document: bytes
) -> rules_engine_pb2.ValidateRuleResponse:
    rules = await terminal.session.rules()
    request = rules_engine_pb2.ValidateRuleRequest(parent=await terminal.session.tenant(), document=document)
    answer = await rules.ValidateRule(request)
    if answer.problems:
        raise RefusedError(
            f"{file} has {len(answer.problems)} problem(s).",
            "Correct them; each begins with the JSON pointer of its place.",
            _problem_lines(answer.problems),
        )
    return answer


async def _rule(terminal: Terminal, text: str) -> str:
    return within(await terminal.session.tenant(), "rules", text)


def _name_in(document: bytes, file: Path) -> str:
    try:
        name = json.loads(document).get("name")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is not JSON: {error}.", "Correct the file.") from error
    except AttributeError:
        raise UsageError(f"{file} is not a JSON object.", "See: tlsy rules validate --help") from None
    if not isinstance(name, str) or not name:
        raise UsageError(f'{file} has no "name".', "Give one with --name.")
    return name


def _problem_lines(problems: Sequence[rules_engine_pb2.RuleProblem]) -> list[str]:
    return [f"{p.pointer or '/'}: {p.code}: {p.message}{f' ({p.hint})' if p.hint else ''}" for p in problems]
