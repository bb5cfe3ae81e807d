from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        create table orders (
            tenant_id uuid not null,
            order_id bigint not null,
            note text not null,
            primary key (tenant_id, order_id)
        )
        """
    )
    op.execute("select tlsy.protect('orders')")
