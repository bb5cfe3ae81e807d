"""Rules and their versions, the engine's state, incidents, and the fields that events have had."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_RULES = """
create table rules (
    tenant_id uuid not null,
    rule_id text not null,
    display_name text not null,
    event_type text not null,
    enabled boolean not null,
    live_version text not null,
    -- Live before the present one; null for a rule that has had one version only.
    previous_version text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    revision bigint not null,
    primary key (tenant_id, rule_id)
);
select tlsy.protect('rules');

-- Never changed. The canonical document holds the rule's name, so no two rules share a version.
create table rule_versions (
    tenant_id uuid not null,
    -- SHA-256 of the document, in hex.
    version_id text not null,
    rule_id text not null,
    document text not null,
    author text not null,
    created_at timestamptz not null,
    primary key (tenant_id, version_id)
);
create index rule_versions_by_rule on rule_versions (tenant_id, rule_id, created_at, version_id);
select tlsy.protect('rule_versions');
"""

_STATE = """
-- One row per tenant with rules. Whoever changes rules, or evaluates, locks it first.
create table rule_set (
    tenant_id uuid not null,
    -- Grows with every change of any rule.
    version bigint not null default 0,
    -- Of the transaction that last wrote rule_state: an engine in memory that is of another one is not used.
    stamp uuid not null default '00000000-0000-0000-0000-000000000000',
    -- How many operators' resolutions the engine has not been told of.
    clears bigint not null default 0,
    primary key (tenant_id)
) with (fillfactor = 50);
select tlsy.protect('rule_set');

-- The engine's state: sources (owner 'source') and groups of rule versions. A key may be longer than an index
-- takes, so its hash stands for it.
create table rule_state (
    tenant_id uuid not null,
    owner text not null,
    key_hash bytea not null,
    key text not null,
    payload bytea not null,
    primary key (tenant_id, owner, key_hash)
) with (fillfactor = 70);
select tlsy.protect('rule_state');
"""

_INCIDENTS = """
create table incidents (
    tenant_id uuid not null,
    incident_id uuid not null,
    rule_id text not null,
    version_id text not null,
    dedup_key text not null,
    state text not null check (state in ('OPEN', 'ACKNOWLEDGED', 'RESOLVED')),
    severity text not null,
    summary text not null,
    site text not null,
    group_values jsonb not null,
    operands jsonb not null,
    opened_at timestamptz not null,
    last_seen_at timestamptz not null,
    acknowledged_by text not null,
    resolved_at timestamptz,
    reopened integer not null,
    occurrences bigint not null,
    -- Groups of the rule that fire for it now; at none the rule resolves it.
    firing_groups integer not null,
    -- An operator resolved it and the engine has not been told.
    clear_pending boolean not null,
    timeline jsonb not null,
    entries_dropped integer not null,
    revision bigint not null,
    primary key (tenant_id, incident_id)
);
create unique index incidents_current on incidents (tenant_id, dedup_key) where state <> 'RESOLVED';
create index incidents_by_key on incidents (tenant_id, dedup_key, incident_id);
create index incidents_to_clear on incidents (tenant_id, incident_id) where clear_pending;
select tlsy.protect('incidents');
"""

_FIELDS = """
create table observed_fields (
    tenant_id uuid not null,
    event_type text not null,
    path text not null,
    types text[] not null,
    last_seen_at timestamptz not null,
    primary key (tenant_id, event_type, path)
);
select tlsy.protect('observed_fields');
"""


def upgrade() -> None:
    """Creates the tables of a tenant's placement."""
    op.execute(_RULES)
    op.execute(_STATE)
    op.execute(_INCIDENTS)
    op.execute(_FIELDS)
