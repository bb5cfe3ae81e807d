"""A deployment reads what kubectl prints, and says what it cannot use."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from deploy.kubectl import Kubectl
from deploy.rollout import CommandError

if TYPE_CHECKING:
    from pathlib import Path


def kubectl(folder: Path, printed: str, status: int = 0) -> Kubectl:
    """One that prints the same whatever it is asked."""
    program = folder / "kubectl"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}\nEND\nexit {status}\n")
    program.chmod(0o755)
    return Kubectl(str(program), "tlsy", 10)


def test_the_set_of_a_deployment_is_remembered(tmp_path):
    data = {"set": base64.b64encode(b"a set").decode()}
    secret = json.dumps({"type": "tlsy.dev/deployed-set", "data": data})
    assert kubectl(tmp_path, secret).remembered("suite") == b"a set"
    assert kubectl(tmp_path, "").remembered("suite") is None


def test_a_secret_of_somebody_else_is_not_taken_for_a_set(tmp_path):
    with pytest.raises(CommandError, match="secret/suite-deployed is there and of no deployment"):
        kubectl(tmp_path, json.dumps({"type": "Opaque", "data": {"a": "b"}})).remembered("suite")


@pytest.mark.parametrize(("status", "line"), [(0, "x" * 300), (1, "")])
def test_of_a_log_that_there_is_the_beginning_of_the_last_line_is_told(tmp_path, status, line):
    assert kubectl(tmp_path, "x" * 400 if line else "", status).last_line("pod", "main") == line
