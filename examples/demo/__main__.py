"""`make demo`."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn


def main() -> int:
    """What it needs takes a second to load, and Ctrl-C counts from the first moment."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # No exception: a library that is being loaded could swallow it. The run has handlers of its own.
        signal.signal(signal.SIGINT, _end)
    from examples.demo.run import main as demo  # noqa: PLC0415 - see above

    return demo()


def _end(*_: object) -> NoReturn:
    os.write(sys.stderr.fileno(), b"Stopped; nothing is left running.\n")
    os._exit(130 if "--once" in sys.argv else 0)


if __name__ == "__main__":
    sys.exit(main())
