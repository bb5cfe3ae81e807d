"""The table `operations`, and what is told of it by NOTIFY."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tlsy.runtime.ids import TenantId
from tlsy.tenant_registry.domain.kinds import Verb
from tlsy.tenant_registry.domain.operation import Cause, Operation, Outcome, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import datetime
    from uuid import UUID

    import asyncpg

    from tlsy.tenancy.unit_of_work import UnitOfWork


class PostgresOperations:
    """See `tlsy.tenant_registry.ports.Operations`."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def add(self, tx: UnitOfWork, operation: Operation) -> None:
        """See the port."""
        await tx.fetch(
            self._sql["insert_operation"],
            operation.owner_id,
            operation.operation_id,
            operation.target_id,
            operation.target_slug,
            operation.verb,
            _steps_text(operation),
            operation.attempts,
            operation.outcome,
            operation.reason,
            operation.message,
            operation.created_at,
            operation.due_at,
            operation.cause.principal,
            operation.cause.correlation_id,
            operation.cause.traceparent,
        )

    async def save(self, tx: UnitOfWork, operation: Operation, now: datetime) -> None:
        """See the port."""
        await tx.fetch(
            self._sql["update_operation"],
            operation.owner_id,
            operation.operation_id,
            _steps_text(operation),
            operation.attempts,
            operation.outcome,
            operation.reason,
            operation.message,
            operation.due_at,
            now,
        )

    async def get(self, tx: UnitOfWork, operation_id: UUID) -> Operation | None:
        """See the port."""
        row = await tx.fetchrow(self._sql["get_operation"], operation_id)
        return None if row is None else _operation(row)

    async def running(self, tx: UnitOfWork, verb: Verb, family: TenantId) -> Sequence[Operation]:
        """See the port."""
        rows = await tx.fetch(self._sql["list_running_operations"], verb, family)
        return [_operation(row) for row in rows]

    async def due(
        self,
        tx: UnitOfWork,
        now: datetime,
        until: datetime,
        *,
        busy: AbstractSet[TenantId],
        limit: int,
    ) -> Sequence[Operation]:
        """See the port."""
        rows = await tx.fetch(self._sql["list_due_operations"], now, until, list(busy), limit)
        return [_operation(row) for row in rows]

    async def forget_ended(self, tx: UnitOfWork, before: datetime) -> None:
        """See the port."""
        await tx.execute(self._sql["delete_ended_operations"], before)


def _steps_text(operation: Operation) -> str:
    return json.dumps([[step.name, step.done, step.error] for step in operation.steps])


def _operation(row: asyncpg.Record) -> Operation:
    return Operation(
        operation_id=row["operation_id"],
        owner_id=TenantId(row["tenant_id"]),
        target_id=TenantId(row["target_id"]),
        target_slug=row["target_slug"],
        verb=Verb(row["verb"]),
        steps=tuple(Step(name, done, error) for name, done, error in json.loads(row["steps"])),
        attempts=row["attempts"],
        outcome=Outcome(row["outcome"]),
        reason=row["reason"],
        message=row["message"],
        created_at=row["created_at"],
        due_at=row["due_at"],
        cause=Cause(
            principal=row["principal"],
            correlation_id=row["correlation_id"],
            traceparent=row["traceparent"],
        ),
    )
