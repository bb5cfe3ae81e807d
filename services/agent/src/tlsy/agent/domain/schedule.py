"""How long the agent waits before it tries again to deliver."""

from __future__ import annotations

from typing import Final

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 60.0


def wait_s(failures: int, retry_after_s: float | None, jitter: float) -> float:
    """Seconds to wait after `failures` failures in a row.

    Doubles from FIRST_WAIT_S up to LONGEST_WAIT_S, with up to half of it taken off by `jitter` (0 to 1), so
    that agents that lost their server together do not come back together. A server's own word
    (`retry_after_s`, from RetryInfo) is never undercut.
    """
    doubled = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 16))
    return max(retry_after_s or 0.0, doubled * (1 - jitter / 2))
