"""Runs the rules engine as a process of its own."""

from __future__ import annotations

import sys

from tlsy.rules_engine.settings import RulesEngineSettings
from tlsy.runtime.host import main

if __name__ == "__main__":
    sys.exit(main("rules-engine", RulesEngineSettings, app="tlsy.rules_engine.app"))
