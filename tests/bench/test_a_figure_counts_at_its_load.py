from __future__ import annotations

import pytest

from .incident import reached


@pytest.mark.parametrize(
    ("p99_ms", "events_per_s", "counts"), [(249.0, 4_960, True), (251.0, 4_960, False), (90.0, 4_000, False)]
)
def test_an_incident_is_soon_told_only_if_all_events_came(p99_ms, events_per_s, counts):
    assert reached({"p99_ms": p99_ms, "events_per_s": events_per_s}) is counts
