"""`python -m images [NAME…]`: builds container images and says how big they are."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from images.build import build, names
from images.context import ROOT, BuildError

if TYPE_CHECKING:
    from images.build import Built

_MB: Final = 1_000_000


def table(built: Built) -> str:
    """Image, MB, MB that no other image of the table has, digest."""
    rows = [("image", "MB", "beyond shared", "digest")]
    for name, image in built.images.items():
        beyond = f"{built.beyond_shared[name] / _MB:.1f}" if name in built.beyond_shared else "-"
        rows.append((image.name, f"{image.bytes / _MB:.1f}", beyond, image.digest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def document(built: Built) -> dict[str, object]:
    """The same for programs; bytes as they are unpacked."""
    return {
        name: {
            "image": image.name,
            "digest": image.digest,
            "bytes": image.bytes,
            "beyond_shared_bytes": built.beyond_shared.get(name),
        }
        for name, image in built.images.items()
    }


def main() -> int:
    """Returns the exit code: 1 if an image cannot be built."""
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"default: all of {', '.join(names())}")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "images", help="for the layout")
    parser.add_argument("--tag", default="dev", help="of the images' names")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    parser.add_argument("--no-cache", action="store_true", help="use nothing that was built before")
    arguments = parser.parse_args()
    unknown = set(arguments.name) - set(names())
    if unknown:
        parser.error(f"no image is named {', '.join(sorted(unknown))}: {', '.join(names())}")
    try:
        built = build(
            arguments.name or names(), arguments.folder, tag=arguments.tag, cache=not arguments.no_cache
        )
    except (BuildError, OSError) as error:
        sys.stderr.write(f"images: {error}\n")
        return 1
    said = table(built) if arguments.output == "table" else json.dumps(document(built))
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
