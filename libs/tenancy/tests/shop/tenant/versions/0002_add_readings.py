from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute(
        """
        create table readings (
            tenant_id uuid not null,
            ts timestamptz not null,
            reading_id bigint not null,
            percent text not null default '100%',
            primary key (tenant_id, ts, reading_id)
        ) partition by range (ts)
        """
    )
    op.execute("select tlsy.protect('readings')")
    op.execute("select tlsy.partition_by_time('readings', keep_days => 35, behind_days => 2)")
