"""Runs the tenant registry as a process of its own."""

from __future__ import annotations

import sys

from tlsy.runtime.host import main
from tlsy.tenant_registry.settings import TenantRegistrySettings

if __name__ == "__main__":
    sys.exit(main("tenant-registry", TenantRegistrySettings, app="tlsy.tenant_registry.app"))
