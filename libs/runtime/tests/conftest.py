from __future__ import annotations

import pytest

from tlsy.testkit import ports


@pytest.fixture
def free_port() -> int:
    return ports.free_port()
