-- Outbox and inbox of one service in one database (control or any database that holds tenants).
-- __service__ is the service's schema and the tail of its role's name. Day partitions are made by the
-- partition maintenance; an outbox partition that still holds an unpublished row is never dropped.

create table __service__.outbox (
    tenant_id uuid not null,
    day date not null,
    event_id uuid not null,
    seq bigint generated always as identity,
    key text not null check (length(key) between 1 and 256),
    type text not null check (length(type) between 1 and 128),
    source text not null check (length(source) between 1 and 64),
    epoch bigint not null,
    occurred_at timestamptz not null,
    traceparent text not null default '',
    data bytea storage external not null check (length(data) <= 524288),
    -- A publisher that sends from memory after its commit puts this a few seconds ahead, so that the
    -- sweep does not send the same record meanwhile.
    sweep_after timestamptz not null default now(),
    published_at timestamptz,
    published_log integer,
    published_partition integer,
    published_offset bigint,
    primary key (tenant_id, day, event_id)
) partition by range (day);

create index outbox_unpublished on __service__.outbox (seq) where published_at is null;

create table __service__.inbox (
    tenant_id uuid not null,
    consumer_group text not null,
    day date not null,
    event_id uuid not null,
    primary key (tenant_id, consumer_group, day, event_id)
) partition by range (day);

-- Who owns a tenant's in-memory state in one consumer group: a lower epoch than the one stored is a
-- former owner of the partition, whose transactions must not commit.
create table __service__.consumer_fence (
    tenant_id uuid not null,
    consumer_group text not null,
    epoch bigint not null,
    primary key (tenant_id, consumer_group)
);

-- The incarnation of the topic that this database's outbox was last reconciled with.
create table __service__.relay_state (
    only_row boolean primary key default true check (only_row),
    reconciled_log integer not null
);

grant select, insert on __service__.outbox to tlsy___service__;
grant select, insert on __service__.inbox to tlsy___service__;
grant select, insert, update on __service__.consumer_fence to tlsy___service__;

-- The relay publishes every tenant's rows of its service: the one policy that names a role.
create policy relay_reads on __service__.outbox for select to tlsy_relay using (true);
create policy relay_marks on __service__.outbox for update to tlsy_relay using (true) with check (true);

grant usage on schema __service__ to tlsy_relay;
grant select on __service__.outbox to tlsy_relay;
grant update (published_at, published_log, published_partition, published_offset)
    on __service__.outbox to tlsy_relay;
grant select, insert, update on __service__.relay_state to tlsy_relay;
