"""`make bench-cluster` fails when a figure is missed, and only then."""

from __future__ import annotations

import pytest

from tests.cluster.__main__ import missed


@pytest.mark.parametrize(
    ("cold_build_s", "start_s", "worse"),
    [
        (720.0, 25.0, []),
        (720.1, 25.1, ["cold_build_s", "start_s"]),
        # Nothing was built: that is not measured, and no reason to fail.
        (None, 12.0, []),
    ],
)
def test_figures_that_are_missed_are_named(
    cold_build_s: float | None, start_s: float, worse: list[str]
) -> None:
    assert missed({"cold_build_s": cold_build_s, "start_s": start_s}) == worse
