"""The catalogue: tenants, hierarchy, placements, clusters, modules, entitlements, provisioning."""
