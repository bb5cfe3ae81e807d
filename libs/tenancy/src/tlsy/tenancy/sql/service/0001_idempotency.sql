-- Answers to mutating requests, kept until expires_at so that a repeated request gets the same one.
-- response is null only inside the transaction that is answering.

create table __service__.idempotency (
    tenant_id uuid not null,
    principal text not null,
    method text not null,
    request_id uuid not null,
    body_hash bytea not null,
    response bytea,
    expires_at timestamptz not null,
    primary key (tenant_id, principal, method, request_id)
);

-- For the upkeep, which deletes what has expired of all tenants.
create index idempotency_expiry on __service__.idempotency (expires_at);

grant select, insert, update on __service__.idempotency to tlsy___service__;
