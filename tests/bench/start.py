"""How soon the suite is ready after its start, and what memory it then takes.

The data directory is made before, as at any start but the first. Each service is asked for its health from
the moment the process begins. The raw limit in the same run: a bare Python process that imports what the
suite imports.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from examples.demo.processes import Processes

RUNS: Final = 3
MOST_READY_S: Final = 6.0
MOST_RSS_MB: Final = 300
_SETTLE_S: Final = 1.0
_POLL_S: Final = 0.02


async def serving(folder: Path, service: str, began_s: float) -> float:
    """Seconds until the service says SERVING; no other suite may run on the machine."""
    async with asyncio.timeout(120):
        while True:
            for socket in await asyncio.to_thread(lambda: list(folder.glob(f"tlsy-*/rpc/{service}"))):
                async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
                    try:
                        stub: Any = health_pb2_grpc.HealthStub(channel)
                        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
                        if answer.status == health_pb2.HealthCheckResponse.SERVING:
                            return time.perf_counter() - began_s
                    except grpc.aio.AioRpcError:
                        continue
            await asyncio.sleep(_POLL_S)


async def one_start(data: Path) -> tuple[float, dict[str, float], float]:
    """Ready after so many seconds, each service after so many, and MiB of the process."""
    processes = Processes(data)
    names = ("tenant-registry", "identity", "ingestion", "rules-engine")
    began_s = time.perf_counter()
    folder = Path(tempfile.gettempdir())
    watching = [asyncio.create_task(serving(folder, name, began_s)) for name in names]
    try:
        await processes.start_suite()
        ready_s = time.perf_counter() - began_s
        each = dict(zip(names, await asyncio.gather(*watching), strict=True))
        await asyncio.sleep(_SETTLE_S)
        pid = json.loads((data / "suite" / "run.json").read_text())["pid"]
        rss_mb = psutil.Process(pid).memory_info().rss / 2**20
    finally:
        for watch in watching:
            watch.cancel()
        await processes.stop()
    return ready_s, each, rss_mb


def import_s() -> float:
    """What a bare process takes to import the suite."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import tlsy.embedded.app"], check=True)
    return time.perf_counter() - began_s


async def bench(data: Path) -> dict[str, Any]:
    """Makes the data directory, then measures."""
    await one_start(data)
    runs = [await one_start(data) for _ in range(RUNS)]
    ready_s = statistics.median(run[0] for run in runs)
    imports_s = import_s()
    return {
        "suite_ready_s": round(ready_s, 2),
        "rss_mb": round(statistics.median(run[2] for run in runs)),
        "service_ready_s": {
            name: round(statistics.median(run[1][name] for run in runs), 2) for name in runs[0][1]
        },
        "import_s": round(imports_s, 2),
        "ratio": round(ready_s / imports_s, 2),
    }


def main() -> int:
    """Runs in a scratch data directory and prints the figures."""
    root = Path("/var/lib/tlsy") if os.geteuid() == 0 else Path(tempfile.gettempdir())
    root.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="bench-start-", dir=root))
    data.chmod(0o711)
    try:
        figures = asyncio.run(bench(data))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["suite_ready_s"] <= MOST_READY_S and figures["rss_mb"] <= MOST_RSS_MB else 1


if __name__ == "__main__":
    sys.exit(main())
