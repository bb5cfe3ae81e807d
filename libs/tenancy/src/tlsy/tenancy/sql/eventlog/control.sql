-- What the event log keeps once, in the control database, schema tlsy. It says nothing about a tenant.

-- A topic gets another incarnation when its broker lost records: another cluster id, or an end offset
-- that went back. Offsets are only comparable inside one incarnation.
create table tlsy.topic_log (
    topic text primary key,
    incarnation integer not null,
    cluster_id text not null,
    changed_at timestamptz not null default now()
);

-- The highest offset that the broker acknowledged, per partition of the current incarnation.
create table tlsy.topic_end (
    topic text not null,
    partition integer not null,
    incarnation integer not null,
    acknowledged_offset bigint not null,
    primary key (topic, partition)
);

-- Groups that must have applied a record before it may be left out of a re-publication.
create table tlsy.consumer_group (
    topic text not null,
    consumer_group text not null,
    seen_at timestamptz not null default now(),
    primary key (topic, consumer_group)
);

-- Records below next_offset are applied (or parked, or dead-lettered) by the group; only grows.
create table tlsy.consumer_watermark (
    topic text not null,
    consumer_group text not null,
    incarnation integer not null,
    partition integer not null,
    next_offset bigint not null,
    updated_at timestamptz not null default now(),
    primary key (topic, consumer_group, incarnation, partition)
);

-- One number per partition and group that grows with every assignment, also across wiped brokers
-- (whose own generations start again at 1): higher than that of any earlier assignment, whatever its
-- partition, because a topic that gets more partitions moves tenants among them. Those that a group begins
-- with are here from then on, with 0; one that is not waits for them before it is taken.
create table tlsy.partition_assignment (
    topic text not null,
    consumer_group text not null,
    partition integer not null,
    epoch bigint generated always as identity,
    assigned_at timestamptz not null default now(),
    primary key (topic, consumer_group, partition)
);

grant usage on schema tlsy to tlsy_relay;
grant select, insert, update on tlsy.topic_log, tlsy.topic_end to tlsy_relay;
grant select on tlsy.consumer_group to tlsy_relay;
grant select, delete on tlsy.consumer_watermark to tlsy_relay;
