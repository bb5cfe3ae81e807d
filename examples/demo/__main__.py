"""`make demo`."""

from __future__ import annotations

import sys


def main() -> int:
    """What it needs takes a second to load, and Ctrl-C counts from the first moment."""
    try:
        from examples.demo.run import main as demo  # noqa: PLC0415 - see above

        return demo()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; nothing is left running.\n")
        return 130 if "--once" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
