from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        create table entries (
            tenant_id uuid not null,
            position bigint generated always as identity,
            note text not null,
            epoch bigint not null,
            primary key (tenant_id, position)
        )
        """
    )
    op.execute("select tlsy.protect('entries')")
