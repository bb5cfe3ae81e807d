"""`python -m tlsy.identity`."""

from __future__ import annotations

from tlsy.identity.settings import IdentitySettings
from tlsy.runtime.host import main

if __name__ == "__main__":
    raise SystemExit(main("identity", IdentitySettings, app="tlsy.identity.app"))
