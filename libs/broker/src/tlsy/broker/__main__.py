from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Final

from tlsy.broker.broker import Broker
from tlsy.broker.settings import BrokerSettings

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def _serve(settings: BrokerSettings) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopped.set)
    async with Broker(settings) as broker:
        sys.stdout.write(f"listening on {broker.address}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Run a broker alone until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m tlsy.broker", description=main.__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="interface to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=9092, help="0 chooses a free one (default: %(default)s)")
    parser.add_argument(
        "--auto-create-topics", action="store_true", help="create a topic when a client asks for it"
    )
    arguments = parser.parse_args()
    settings = BrokerSettings(
        host=arguments.host, port=arguments.port, auto_create_topics=arguments.auto_create_topics
    )
    asyncio.run(_serve(settings))


if __name__ == "__main__":
    main()
