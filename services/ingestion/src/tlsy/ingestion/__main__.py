"""Runs ingestion as a process of its own."""

from __future__ import annotations

import sys

from tlsy.ingestion.settings import IngestionSettings
from tlsy.runtime.host import main

if __name__ == "__main__":
    sys.exit(main("ingestion", IngestionSettings, app="tlsy.ingestion.app"))
