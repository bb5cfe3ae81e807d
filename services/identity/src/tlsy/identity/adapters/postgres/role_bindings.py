"""The table `role_bindings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from tlsy.identity.domain.bindings import RoleBinding
from tlsy.identity.domain.ids import BindingId, PrincipalKind, PrincipalRef

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Record

    from tlsy.tenancy.unit_of_work import UnitOfWork

_FIRST: Final = UUID(int=0)
#: More roles than there are times more modules than there are.
_MAX_OF_PRINCIPAL: Final = 200


class PostgresRoleBindings:
    """Roles of the tenant that the transaction has entered."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._sql = statements

    async def insert(self, tx: UnitOfWork, binding: RoleBinding) -> bool:
        """False: the principal has this role in this module already."""
        inserted = await tx.fetchval(
            self._sql["insert_binding"],
            tx.tenant_id,
            binding.id,
            binding.principal.kind.value,
            binding.principal.id,
            binding.role,
            binding.module,
            binding.create_time,
        )
        return inserted is not None

    async def get(self, tx: UnitOfWork, binding_id: BindingId) -> RoleBinding | None:
        """One binding."""
        row = await tx.fetchrow(self._sql["get_binding"], tx.tenant_id, binding_id)
        return None if row is None else _binding(row)

    async def of(self, tx: UnitOfWork, principal: PrincipalRef) -> list[RoleBinding]:
        """All roles of one principal."""
        rows = await tx.fetch(
            self._sql["list_bindings_of_principal"],
            tx.tenant_id,
            principal.kind.value,
            principal.id,
            _FIRST,
            _MAX_OF_PRINCIPAL,
        )
        return [_binding(row) for row in rows]

    async def page(
        self, tx: UnitOfWork, principal: PrincipalRef | None, after: UUID, limit: int
    ) -> list[RoleBinding]:
        """At most `limit` bindings, of one principal or of all, in the order of their creation."""
        if principal is None:
            rows = await tx.fetch(self._sql["list_bindings"], tx.tenant_id, after, limit)
        else:
            rows = await tx.fetch(
                self._sql["list_bindings_of_principal"],
                tx.tenant_id,
                principal.kind.value,
                principal.id,
                after,
                limit,
            )
        return [_binding(row) for row in rows]

    async def delete(self, tx: UnitOfWork, binding_id: BindingId) -> None:
        """Take the role away."""
        await tx.execute(self._sql["delete_binding"], tx.tenant_id, binding_id)

    async def delete_of(self, tx: UnitOfWork, principal: PrincipalRef) -> None:
        """Take all roles of a principal away."""
        await tx.execute(
            self._sql["delete_bindings_of_principal"], tx.tenant_id, principal.kind.value, principal.id
        )

    async def administrators(self, tx: UnitOfWork, role: str) -> list[PrincipalRef]:
        """Users, not disabled, who hold `role` in every module; at most 100. API keys do not count."""
        rows = await tx.fetch(self._sql["list_administrators"], tx.tenant_id, role)
        return [PrincipalRef(PrincipalKind(row["principal_kind"]), row["principal_id"]) for row in rows]


def _binding(row: Record) -> RoleBinding:
    return RoleBinding(
        id=BindingId(row["binding_id"]),
        principal=PrincipalRef(PrincipalKind(row["principal_kind"]), row["principal_id"]),
        role=row["role"],
        module=row["module"],
        create_time=row["create_time"],
    )
