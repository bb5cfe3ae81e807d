"""Rules that judging failed for, and what lists of incidents and their retention need."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_HALTED = """
-- Judging it failed at that time, so it is not in force until it changes.
alter table rules add column halted_at timestamptz;
alter table rules add column halt_reason text not null default '';
"""

_INCIDENTS = """
create index incidents_by_state on incidents (tenant_id, state, incident_id);
create index incidents_resolved on incidents (tenant_id, resolved_at) where resolved_at is not null;
"""


def upgrade() -> None:
    """Adds to the tables of a tenant's placement."""
    op.execute(_HALTED)
    op.execute(_INCIDENTS)
