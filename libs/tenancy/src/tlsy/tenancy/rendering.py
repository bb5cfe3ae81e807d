"""Alembic revisions as SQL text; the only module that knows Alembic."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tlsy.tenancy.migrations import Revision

if TYPE_CHECKING:
    from tlsy.tenancy.migrations import BranchName, ServiceMigrations


def render(migrations: ServiceMigrations, branch: BranchName) -> tuple[Revision, ...]:
    """The revisions of a branch as SQL, oldest first. ValueError if the branch has several heads."""
    root = migrations.root / branch
    versions = root / "versions"
    if not versions.is_dir():
        return ()
    script = ScriptDirectory(str(root), version_locations=[str(versions)])
    if len(script.get_heads()) > 1:
        raise ValueError(f"{migrations.service} {branch}: several heads: {script.get_heads()}")
    rendered = []
    for revision in reversed(list(script.walk_revisions())):
        output = io.StringIO()
        context = MigrationContext.configure(
            dialect_name="postgresql+asyncpg", opts={"as_sql": True, "output_buffer": output}
        )
        with Operations.context(context):
            revision.module.upgrade()
        rendered.append(Revision(revision.revision, output.getvalue()))
    return tuple(rendered)
