from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        create table prices (
            tenant_id uuid not null,
            item text not null,
            cents bigint not null,
            primary key (tenant_id, item)
        )
        """
    )
    op.execute("select tlsy.protect('prices', 'platform')")
