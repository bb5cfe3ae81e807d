"""Each error says what to do next: where a state forbids something, the command line knows the way out."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from tests.architecture.tree import at, distributions, dotted, parse, python_files
from tlsy.cli.adapters.failures import failure_of
from tlsy.cli.domain.contexts import Context
from tlsy.rpc.errors import FailedPrecondition, Permanent, ServiceError

if TYPE_CHECKING:
    from pathlib import Path

#: What raises a FAILED_PRECONDITION; the second is how the registry's domain says it.
_REFUSALS: Final = frozenset({"FailedPrecondition", "NotAllowedNowError"})
#: No command rotates signing keys.
_NEVER_MET: Final = frozenset({"NEXT_KEY_TOO_NEW"})


def next_step(error: ServiceError) -> str:
    return failure_of(error, Context(name="c", addresses={})).next_step


def without_next_step(path: Path) -> list[str]:
    """States that forbid something, which one learns from the command line no way out of but "look at it"."""
    general = next_step(FailedPrecondition("ANY", "No."))
    found = [
        (node.lineno, str(node.args[0].value))
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call)
        and dotted(node.func) in _REFUSALS
        and node.args
        and isinstance(node.args[0], ast.Constant)
    ]
    return [
        at(path, line, f"{reason} has no next step in tlsy.cli.adapters.failures")
        for line, reason in found
        if reason not in _NEVER_MET and next_step(FailedPrecondition(reason, "No.")) == general
    ]


def test_every_state_that_forbids_has_a_next_step() -> None:
    paths = python_files(*(each.package for each in distributions()))
    assert [problem for path in paths for problem in without_next_step(path)] == []


def test_every_kind_of_final_error_has_a_next_step() -> None:
    unknown = next_step(Permanent("ANY", "No."))
    assert [kind for kind in Permanent.__subclasses__() if next_step(kind("ANY", "No.")) == unknown] == []


def test_a_state_without_a_next_step_is_found(tmp_path: Path) -> None:
    (tmp_path / "sample.py").write_text(
        'raise FailedPrecondition("TEA_TOO_HOT", "Wait.")\nraise FailedPrecondition("USER_LIMIT", "No.")\n'
    )
    wanted = "sample.py:1: TEA_TOO_HOT has no next step in tlsy.cli.adapters.failures"
    assert without_next_step(tmp_path / "sample.py") == [wanted]
