"""Generates every stub of the product once, from protos/ into tlsy.contracts; run by `make contracts`.

Packages stay `tlsy.<service>.v1` on the wire; the Python modules move to `tlsy.contracts.<service>.v1`,
because `tlsy.<service>` is the service itself. So the imports are rewritten after generation. Google's
well-known and common types come from their own distributions.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
TARGET = Path(__file__).resolve().parent / "src" / "tlsy" / "contracts"
_OURS = re.compile(r"\b(from|import) (tlsy|buf)\.(?!contracts)")
_DOTTED = re.compile(r"(?<![\w./\"'])(tlsy|buf)\.((?:[a-z_]+\.)+[a-z_]+_pb2)")


def _rewrite(text: str) -> str:
    text = _OURS.sub(lambda m: f"{m[1]} tlsy.contracts.{'buf.' if m[2] == 'buf' else ''}", text)
    return _DOTTED.sub(lambda m: f"tlsy.contracts.{'buf.' if m[1] == 'buf' else ''}{m[2]}", text)


def generate(target: Path) -> None:
    """Writes all stubs below `target`, replacing what was generated there before."""
    sources = sorted(
        p.relative_to(PROTOS) for root in ("tlsy", "buf") for p in (PROTOS / root).rglob("*.proto")
    )
    with tempfile.TemporaryDirectory() as scratch:
        bin_dir = Path(sys.executable).parent
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"-I{PROTOS}",
                f"--python_out={scratch}",
                f"--grpc_python_out={scratch}",
                f"--mypy_out=quiet:{scratch}",
                f"--mypy_grpc_out=quiet:{scratch}",
                f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
                *map(str, sources),
            ],
            check=True,
        )
        for old in target.glob("*"):
            if old.is_dir() and old.name != "__pycache__":
                shutil.rmtree(old)
        for made in sorted(Path(scratch).rglob("*.py*")):
            relative = made.relative_to(scratch)
            parts = relative.parts[1:] if relative.parts[0] == "tlsy" else relative.parts
            place = target.joinpath(*parts)
            for folder in list(place.relative_to(target).parents)[:-1]:
                package = target / folder / "__init__.py"
                package.parent.mkdir(parents=True, exist_ok=True)
                package.touch()
            text = _rewrite(made.read_text())
            has_service = "_pb2_grpc" not in made.name or "Servicer" in text
            if has_service:
                place.write_text(text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
