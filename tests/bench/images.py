"""How big the images are, and how soon a service is ready after its container starts, its peers being there.

The raw limit in the same run: a container of the same image that only loads what the service loads.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Final

import docker

from images.build import build, names
from images.context import ROOT
from tests.images.containers import running_containers, serves, until
from tests.images.settings import GRACE_S, SERVICES

if TYPE_CHECKING:
    from docker.models.containers import Container

RUNS: Final = 3
MOST_MB: Final = 180.0
MOST_BEYOND_SHARED_MB: Final = 25.0
MOST_READY_S: Final = 2.0
_MB: Final = 1_000_000


def ready_s(container: Container) -> float:
    """Stop it, start it, and tell after how long it serves."""
    container.stop(timeout=GRACE_S)
    began_s = time.monotonic()
    container.start()
    until(serves, container)
    return time.monotonic() - began_s


def import_s(engine: docker.DockerClient, image: str, service: str) -> float:
    """From the start of a container that imports the service to its end."""
    began_s = time.monotonic()
    engine.containers.run(
        image, ["-c", f"import tlsy.{service.replace('-', '_')}.app"], entrypoint="python3", remove=True
    )
    return time.monotonic() - began_s


def main() -> int:
    """Builds, measures and prints the figures."""
    engine = docker.from_env()
    built = build(names(), ROOT / "build" / "images", tag="bench")
    images = {name: image.name for name, image in built.images.items()}
    with running_containers(engine, images) as containers:
        containers.start_all()
        ready = {
            service: round(statistics.median(ready_s(containers.running[service]) for _ in range(RUNS)), 2)
            for service in SERVICES
        }
    raw = {service: round(import_s(engine, images[service], service), 2) for service in SERVICES}
    sizes = {name: round(image.bytes / _MB, 1) for name, image in built.images.items()}
    beyond = {name: round(size / _MB, 1) for name, size in built.beyond_shared.items()}
    figures = {
        "images": sizes,
        "beyond_shared": beyond,
        "ready_s": ready,
        "import_s": raw,
        "ratio": round(max(ready[service] / raw[service] for service in SERVICES), 2),
    }
    sys.stdout.write(f"{json.dumps(figures)}\n")
    held = (
        all(sizes[name] <= MOST_MB and beyond[name] <= MOST_BEYOND_SHARED_MB for name in beyond)
        and max(ready.values()) <= MOST_READY_S
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
