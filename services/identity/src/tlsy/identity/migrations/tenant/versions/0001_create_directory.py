"""Users, who holds which role, API keys, revocations, and what a directory remembers of itself."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
-- One row per tenant. Locked first by whatever counts principals or administrators.
create table directory (
    tenant_id uuid primary key,
    first_admin_log_in_time timestamptz,
    bootstrap_time timestamptz
);

-- email_lookup: keyed hash of the normal form. *_sealed: AES-GCM-SIV, key id in front.
create table users (
    tenant_id uuid not null,
    user_id uuid not null,
    email_lookup bytea not null check (length(email_lookup) = 32),
    email_sealed bytea not null check (length(email_sealed) <= 512),
    display_name_sealed bytea not null check (length(display_name_sealed) <= 1024),
    locale text not null check (length(locale) <= 35),
    disabled boolean not null,
    password_hash text check (length(password_hash) <= 256),
    failures integer not null,
    failures_since timestamptz,
    locked_until timestamptz,
    lockouts integer not null,
    create_time timestamptz not null,
    last_log_in_time timestamptz,
    version bigint not null,
    primary key (tenant_id, user_id),
    unique (tenant_id, email_lookup)
);

create table api_keys (
    tenant_id uuid not null,
    key_id uuid not null,
    display_name text not null check (length(display_name) <= 200),
    role text not null check (length(role) <= 64),
    secret_hash bytea not null check (length(secret_hash) = 32),
    prefix text not null check (length(prefix) = 8),
    create_time timestamptz not null,
    expire_time timestamptz,
    revoke_time timestamptz,
    last_used_time timestamptz,
    primary key (tenant_id, key_id)
);

create table role_bindings (
    tenant_id uuid not null,
    binding_id uuid not null,
    principal_kind text not null check (principal_kind in ('users', 'apiKeys')),
    principal_id uuid not null,
    role text not null check (length(role) <= 64),
    module text not null check (length(module) <= 40),
    create_time timestamptz not null,
    primary key (tenant_id, binding_id),
    unique (tenant_id, principal_kind, principal_id, role, module)
);

create table revocations (
    tenant_id uuid not null,
    principal text not null check (length(principal) <= 128),
    revoke_time timestamptz not null,
    expire_time timestamptz not null,
    cause text not null check (cause in ('key', 'user', 'role', 'password')),
    primary key (tenant_id, principal)
);
"""

PROTECTION = """
select tlsy.protect('directory');
select tlsy.protect('users');
select tlsy.protect('api_keys');
select tlsy.protect('role_bindings');
select tlsy.protect('revocations');
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(TABLES)
    op.execute(PROTECTION)


def downgrade() -> None:
    """Drop them with everything in them."""
    op.execute("drop table revocations, role_bindings, api_keys, users, directory")
