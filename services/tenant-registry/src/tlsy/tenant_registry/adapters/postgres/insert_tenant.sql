-- Slugs are unique among tenants' own rows. Where this one's is taken, the rows that its ancestors would see are
-- inserted all the same: so the own row alone says whether there is a new tenant; if not, the caller rolls back.
with change as (update changes set last_version = last_version + 1 returning last_version as version),
inserted as (
    insert into tenants (
        tenant_id, subject_id, slug, skeleton, display_name, country, parent_id, parent_slug, ancestor_ids,
        sector_profile, isolation_mode, tier, provider_access, locale, time_zone, currency_code, host_names, residency,
        requested_cluster, cluster_id, database_name, schema_name, phase, suspend_reason, failure_reason, state, epoch,
        modules, active_modules, overrides, entitlements, version, created_at, updated_at, erase_after,
        active_tier, placed
    )
    select viewer, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
        $23, $24, $25, $26, $27, $28, $29::text::jsonb, $30::text::jsonb, change.version, $31, $32, $33, $34, $35
    from unnest($1::uuid || $8::uuid[]) as viewer, change
    on conflict do nothing
    returning tenant_id, subject_id, version
)
select version from inserted where tenant_id = subject_id
