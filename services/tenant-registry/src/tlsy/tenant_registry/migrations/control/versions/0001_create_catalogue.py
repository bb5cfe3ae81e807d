"""The catalogue: countries, clusters, tenants, host names and operations."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CHANGES = """
-- The place of a change in the catalogue's one sequence. Who takes a number holds the row until its
-- transaction ends, so numbers become visible in their order and without gaps: who has seen n never meets a
-- lower one for the first time. Locks are taken in one order: tenants from the top down, cluster, this row.
create table changes (
    only_row boolean primary key default true check (only_row),
    last_version bigint not null
);
insert into changes (last_version) values (0);
"""

PLACES = """
create table countries (
    code text primary key check (code ~ '^[a-z]{2}$'),
    display_name text not null check (length(display_name) <= 200),
    allowed_cluster_countries text[] not null,
    version bigint not null
);

-- No secret: secret_ref names where services find address and credentials.
create table clusters (
    cluster_id text primary key check (length(cluster_id) between 1 and 40),
    region text not null check (length(region) <= 64),
    country text not null references countries,
    kind text not null check (kind in ('SHARED', 'DEDICATED')),
    secret_ref text not null check (length(secret_ref) <= 200),
    max_tenants integer not null check (max_tenants >= 0),
    cordoned boolean not null,
    tenant_count integer not null check (tenant_count >= 0),
    unreachable_since timestamptz,
    -- Its common database has as many relations as it may: it takes no further SCHEMA tenant.
    schemas_full boolean not null default false,
    version bigint not null
);
"""

TENANTS = """
-- One row describes a tenant (subject_id) for one tenant that may see it (tenant_id): itself, and each of its
-- ancestors. All rows of a subject are written by the same statement, so they are always alike.
create table tenants (
    tenant_id uuid not null,
    subject_id uuid not null,
    slug text not null check (length(slug) between 3 and 40),
    skeleton text not null,
    display_name text not null check (length(display_name) between 1 and 200),
    country text not null references countries,
    parent_id uuid,
    parent_slug text not null,
    -- From the parent upwards.
    ancestor_ids uuid[] not null,
    sector_profile text not null,
    isolation_mode text not null check (isolation_mode in ('SHARED', 'SCHEMA', 'DEDICATED')),
    tier text not null,
    provider_access text not null,
    locale text not null,
    time_zone text not null,
    currency_code text not null,
    host_names text[] not null check (cardinality(host_names) <= 20),
    residency text[] not null,
    requested_cluster text not null,
    cluster_id text not null references clusters,
    database_name text not null,
    schema_name text not null,
    phase text not null,
    suspend_reason text not null,
    failure_reason text not null,
    state text not null,
    epoch bigint not null check (epoch > 0),
    modules text[] not null,
    active_modules text[] not null,
    overrides jsonb not null,
    entitlements jsonb not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    erase_after timestamptz,
    active_tier text not null,
    -- Something of it may be on its cluster.
    placed boolean not null,
    primary key (tenant_id, subject_id),
    check (tenant_id = subject_id or tenant_id = any (ancestor_ids)),
    check (subject_id <> all (ancestor_ids)),
    check (parent_id is not distinct from ancestor_ids[1])
);

-- A slug, and whatever looks like it, is free again only after erasure.
create unique index tenants_slug on tenants (slug)
    where tenant_id = subject_id and state <> 'DELETED';
create unique index tenants_skeleton on tenants (skeleton)
    where tenant_id = subject_id and state <> 'DELETED';
create index tenants_subject on tenants (subject_id);
create index tenants_version on tenants (version) where tenant_id = subject_id;

create table host_names (
    tenant_id uuid not null,
    -- Canonical: ASCII, lower case, no final dot.
    host_name text not null check (length(host_name) <= 253),
    primary key (tenant_id, host_name)
);
create unique index host_names_once on host_names (host_name);

select tlsy.protect('tenants', 'platform');
select tlsy.protect('host_names', 'platform');
"""

OPERATIONS = """
-- tenant_id: whose principal asked for it. target_id: the tenant it is done to.
create table operations (
    tenant_id uuid not null,
    operation_id uuid not null,
    target_id uuid not null,
    target_slug text not null,
    verb text not null check (verb in ('create', 'delete', 'fence')),
    steps jsonb not null,
    attempts integer not null,
    outcome text not null check (outcome in ('RUNNING', 'SUCCEEDED', 'FAILED')),
    reason text not null,
    message text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    due_at timestamptz not null,
    primary key (tenant_id, operation_id)
);
create index operations_by_id on operations (operation_id);
create index operations_due on operations (due_at) where outcome = 'RUNNING';
create index operations_running on operations (target_id) where outcome = 'RUNNING';
create index operations_ended on operations (updated_at) where outcome <> 'RUNNING';

select tlsy.protect('operations', 'platform');
"""


def upgrade() -> None:
    """Create the tables."""
    for statements in (CHANGES, PLACES, TENANTS, OPERATIONS):
        op.execute(statements)
