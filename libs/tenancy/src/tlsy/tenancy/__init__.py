"""Tenant context, placement router, row-level security, migrations, provisioning core, catalogue linter."""
