with change as (update changes set last_version = last_version + 1 returning last_version as version)
update tenants set
    display_name = $2, tier = $3, provider_access = $4, locale = $5, time_zone = $6, currency_code = $7,
    host_names = $8, phase = $9, suspend_reason = $10, failure_reason = $11, state = $12, epoch = $13,
    modules = $14, active_modules = $15, overrides = $16::text::jsonb, entitlements = $17::text::jsonb,
    updated_at = $18, erase_after = $19, active_tier = $20, placed = $21,
    cluster_id = $22, version = change.version
from change
where subject_id = $1
returning tenants.version
