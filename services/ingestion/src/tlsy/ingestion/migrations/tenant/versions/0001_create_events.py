"""Events, their counts, and outcomes of producers' records."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_EVENTS = """
create table events (
    tenant_id uuid not null,
    ts timestamptz not null,
    -- The first 16 bytes of SHA-256 over length-prefixed (source, id).
    event_key bytea not null,
    source text not null,
    event_id text not null,
    type text not null,
    subject text not null,
    site text not null,
    severity smallint not null,
    value double precision,
    labels jsonb not null,
    data jsonb,
    primary key (tenant_id, ts, event_key)
) partition by range (ts);
create index events_by_type on events (tenant_id, type, ts);
create index events_by_source on events (tenant_id, source, ts);
select tlsy.protect('events');
select tlsy.partition_by_time('events', keep_days => 400, behind_days => 4, ahead_days => 3);
"""

_COUNTS = """
-- Events stored in a month. A row per shard, so that batches of one tenant on several connections do not
-- wait for each other.
create table ingest_counts (
    tenant_id uuid not null,
    month date not null,
    shard smallint not null,
    accepted bigint not null,
    primary key (tenant_id, month, shard)
);
select tlsy.protect('ingest_counts');

-- What became of every event that a principal sent in a minute: the ledger, and what the audit log is told.
create table ingest_minutes (
    tenant_id uuid not null,
    minute timestamptz not null,
    principal text not null,
    shard smallint not null,
    batches integer not null,
    accepted bigint not null,
    duplicates bigint not null,
    rejected bigint not null,
    deferred bigint not null,
    -- How many of the batches the audit log was told of, and what of each figure.
    told integer not null default 0,
    told_accepted bigint not null default 0,
    told_duplicates bigint not null default 0,
    told_rejected bigint not null default 0,
    told_deferred bigint not null default 0,
    primary key (tenant_id, minute, principal, shard)
) partition by range (minute);
create index ingest_minutes_open on ingest_minutes (tenant_id, minute) where batches > told;
select tlsy.protect('ingest_minutes');
select tlsy.partition_by_time(
    'ingest_minutes', keep_days => 400, ahead_days => 3, needed_while => 'batches > told'
);

-- When the month's quota was first passed: the grace begins here. Another quota has a grace of its own.
create table ingest_quota_passed (
    tenant_id uuid not null,
    month date not null,
    quota bigint not null,
    passed_at timestamptz not null,
    primary key (tenant_id, month, quota)
);
select tlsy.protect('ingest_quota_passed');
"""

_OUTCOMES = """
-- Records of producers that were refused in whole or in part.
create table ingest_outcomes (
    tenant_id uuid not null,
    record_time timestamptz not null,
    outcome_id uuid not null,
    partition integer not null,
    record_offset bigint not null,
    accepted integer not null,
    duplicates integer not null,
    rejected integer not null,
    rejections jsonb not null,
    primary key (tenant_id, record_time, outcome_id)
) partition by range (record_time);
select tlsy.protect('ingest_outcomes');
select tlsy.partition_by_time('ingest_outcomes', keep_days => 30, behind_days => 4, ahead_days => 3);
"""


def upgrade() -> None:
    """Creates the tables of a tenant's placement."""
    op.execute(_EVENTS)
    op.execute(_COUNTS)
    op.execute(_OUTCOMES)
