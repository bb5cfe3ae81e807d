"""Who asked for an operation and in which request; '' in those of before."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.execute(
        "alter table operations"
        " add column principal varchar(256) not null default '',"
        " add column correlation_id varchar(64) not null default '',"
        " add column traceparent varchar(64) not null default ''"
    )


def downgrade() -> None:
    """Drop the columns."""
    op.execute(
        "alter table operations drop column principal, drop column correlation_id, drop column traceparent"
    )
