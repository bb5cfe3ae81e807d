"""tlsy service-key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tlsy.cli.handlers.command import command
from tlsy.cli.ports import Terminal
from tlsy.rpc.keys import generate_key, jwks_of


@command("service-key")
async def make_service_key(
    terminal: Terminal,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new one (0600): TLSY_SERVICE_KEY_FILE.")],
) -> None:
    """Make a service's signing key; its public half, shown by -o json, is TLSY_TRUST_DIR/<service>.json."""
    key = generate_key()
    with terminal.files.new_secret(file) as made:
        made.write(key.private_jwk)
        # A disk that does not take it is told of before anybody is to trust it.
        made.flush()
        # Without its public half, which is told once, it is of no use.
        terminal.output.item(json.loads(jwks_of((key,))))
