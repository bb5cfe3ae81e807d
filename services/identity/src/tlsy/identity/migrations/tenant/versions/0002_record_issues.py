"""When a key's last token was issued, so that a revocation covers it whatever clock issued it."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Record from now on."""
    op.execute("alter table api_keys add column last_issued_time timestamptz")


def downgrade() -> None:
    """Record no longer."""
    op.execute("alter table api_keys drop column last_issued_time")
