"""The installation's signing keys, and all tenants' revocations for services that start."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
-- One row, locked by whoever changes signing_keys, so that two replicas never plan on the same state.
create table key_ring (
    only_row boolean primary key default true check (only_row)
);

insert into key_ring default values;

-- Of the installation, not of a tenant. private_sealed: AES-GCM-SIV, key id in front.
create table signing_keys (
    kid text primary key check (length(kid) <= 64),
    slot text not null check (slot in ('next', 'signing', 'verifying', 'retired')),
    public_jwk text not null check (length(public_jwk) <= 1024),
    private_sealed bytea check (length(private_sealed) <= 1024),
    announced_time timestamptz not null,
    signing_since timestamptz,
    verifies_until timestamptz,
    check ((slot = 'retired') = (private_sealed is null)),
    check ((slot in ('verifying', 'retired')) = (verifies_until is not null))
);

create unique index signing_keys_one_per_slot on signing_keys (slot)
    where slot in ('next', 'signing');

create table revocation_index (
    tenant_id uuid not null,
    principal text not null check (length(principal) <= 128),
    revoke_time timestamptz not null,
    expire_time timestamptz not null,
    primary key (tenant_id, principal)
);

create index revocation_index_expiry on revocation_index (expire_time);
"""

PROTECTION = "select tlsy.protect('revocation_index', 'platform');"


def upgrade() -> None:
    """Create the tables."""
    op.execute(TABLES)
    op.execute(PROTECTION)


def downgrade() -> None:
    """Drop them with everything in them."""
    op.execute("drop table revocation_index, signing_keys, key_ring")
