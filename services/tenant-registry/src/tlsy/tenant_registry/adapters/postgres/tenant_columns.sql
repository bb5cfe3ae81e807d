subject_id, slug, display_name, country, parent_id, parent_slug, ancestor_ids, sector_profile, isolation_mode,
    tier, provider_access, locale, time_zone, currency_code, host_names, residency, requested_cluster, cluster_id,
    database_name, schema_name, phase, suspend_reason, failure_reason, state, epoch, modules, active_modules,
    overrides::text as overrides, entitlements::text as entitlements, version, created_at, updated_at, erase_after,
    active_tier, placed
