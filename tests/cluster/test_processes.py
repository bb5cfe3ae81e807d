"""What the first process of a process namespace starts."""

from __future__ import annotations

import pytest

from tests.cluster.plan import ClusterError
from tests.cluster.processes import run


def test_a_program_that_does_not_end_is_named() -> None:
    with pytest.raises(ClusterError, match=r"^sleep 600: did not end in 0\.1 s$"):
        run("sleep", "600", timeout_s=0.1)
