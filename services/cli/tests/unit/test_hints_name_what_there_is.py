from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.exceptions import TyperException

import tlsy.cli
from tlsy.cli.adapters.command_line import GROUPS, command_line

COMMAND = re.compile(r"\btlsy ([a-z][a-z-]+)(?: ([a-z][a-z-]+))?")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
#: Every program has them; typer adds the first.
OF_ALL = {"--help", "--version"}


def texts():
    """Every text of the program but docstrings, with where it is; of f-strings the fixed parts."""
    for path in sorted(Path(tlsy.cli.__path__[0]).rglob("*.py")):
        tree = ast.parse(path.read_text())
        alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
                yield f"{path.name}:{node.lineno}", node.value


def options_of_commands():
    """What each command takes, by its group and name; a command by itself has no name."""
    tree: Any = command_line()
    context = typer.Context(tree)
    context.meta["tlsy.resolving"] = True
    return {
        (group.name, name): {option for each in command.params for option in each.opts + each.secondary_opts}
        for group in GROUPS
        for found in [tree.get_command(context, group.name)]
        for name, command in getattr(found, "commands", {"": found}).items()
    }


def test_hints_name_commands_and_options_that_there_are():
    there = options_of_commands()
    options = OF_ALL.union(*there.values())
    wrong = [
        f"{where}: tlsy {group} {name}"
        for where, text in texts()
        for group, name in COMMAND.findall(text)
        if not {(group, name), (group, "")} & there.keys()
    ]
    wrong += [
        f"{where}: {option}"
        for where, text in texts()
        for option in OPTION.findall(text)
        if option not in options
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["incident", "list"], "'incidents'"),
        (["users", "lst"], "'list'"),
        (["incidents", "acknowledge", "1"], "'ack'"),
        (["keys", "delete", "1"], "'revoke'"),
    ],
)
def test_who_names_a_command_that_there_is_not_is_told_what_may_be_meant(given, meant):
    with pytest.raises(TyperException, match=rf"Did you mean {meant}\?"):
        command_line()(args=given, prog_name="tlsy", obj=None, standalone_mode=False)
