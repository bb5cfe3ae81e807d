"""A version of the signing keys, so that an older set never replaces a newer one."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Count from now on."""
    op.execute("alter table key_ring add column version bigint not null default 0")


def downgrade() -> None:
    """Count no longer."""
    op.execute("alter table key_ring drop column version")
