"""What a person at a terminal is told once the suite is ready."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tlsy.embedded.adapters.data_directory import SERVICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tlsy.embedded.adapters.data_directory import DataDirectory
    from tlsy.embedded.settings import EmbeddedSettings


def ready_text(directory: DataDirectory, brokers: Sequence[str], settings: EmbeddedSettings) -> str:
    """Where everything is, who one may be, and what to do next; names files of secrets, never a secret."""
    context = shlex.quote(str(directory.context_file))
    first_tenant = (
        f"tlsy tenants create shop --display-name Shop --country {settings.country}"
        " --tier business --provider-access FULL"
    )
    administrator = (
        f"\n              as {settings.admin_email}, by the password of the first start:"
        f"\n              tlsy context add me --from {context} --user {settings.admin_email}"
        " && tlsy --context me login"
        if settings.admin_email
        else ""
    )
    return f"""
TLS-Y is ready.

  services    unix:{directory.service_sockets}/{{{",".join(SERVICES)}}}
  Kafka       {", ".join(brokers)}
  PostgreSQL  {directory.postgres_socket}
  all this    {directory.run_file}
  log in      as the platform, by the API key in {directory.platform_key_file} (tlsy does){administrator}

Next, in another terminal, in the checkout (the README goes on from there):

  . .venv/bin/activate
  export TLSY_CONFIG={context}
  tlsy doctor
  {first_tenant}

Ctrl-C stops it; the data stay.
"""
