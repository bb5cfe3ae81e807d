-- What one consuming service keeps in the control database.

-- Records of tenants whose database cannot be reached, in the order of their topic, until they can be
-- applied. Bounded per service: a full table stops the partition.
create table __service__.parked_record (
    tenant_id uuid not null,
    consumer_group text not null,
    seq bigint generated always as identity,
    topic text not null,
    partition integer not null,
    record_offset bigint not null,
    record_time timestamptz not null,
    key bytea,
    headers bytea not null,
    value bytea storage external not null,
    parked_at timestamptz not null default now(),
    primary key (tenant_id, consumer_group, seq),
    -- The same record delivered again. An offset alone comes again in the log of another cluster.
    unique (tenant_id, consumer_group, topic, partition, record_offset, record_time)
);

grant select, insert, delete on __service__.parked_record to tlsy___service__;

-- A consumer that finds records missing begins the next incarnation, so that they are published again.
grant select, update (incarnation, changed_at) on tlsy.topic_log to tlsy___service__;
grant select, insert, update on tlsy.consumer_group to tlsy___service__;
grant select, insert, update on tlsy.consumer_watermark to tlsy___service__;
grant select, insert, update on tlsy.partition_assignment to tlsy___service__;
